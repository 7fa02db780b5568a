package receiver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/perigee-iot/perigee/sync/record"
)

// file is the output: one CloudEvent a line. What is in it after a restart is what the receiver has.
type file struct {
	f     *os.File
	path  string
	good  int64 // bytes of whole, written lines
	dirty bool  // there may be more than that in the file
	shut  bool
}

// lineStart is how every line begins: a file with other contents is not ours, and is not touched.
var lineStart = []byte(`{"specversion":"1.0","id":"`)

// openFile opens or makes the file, hands what it holds to each, and cuts off a last line that was not finished.
func openFile(path string, each func(r *record.Record)) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the output: %w", err)
	}
	out := &file{f: f, path: path}
	if err := out.load(each); err != nil {
		_ = f.Close() // the reason is more interesting
		return nil, err
	}
	return out, nil
}

func (o *file) load(each func(r *record.Record)) error {
	if err := syscall.Flock(int(o.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another receiver writes to %s", o.path)
	}
	in := bufio.NewReaderSize(o.f, record.MaxEvent+1)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return o.mend(line)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("%s line %d is longer than a record can be; move the file away", o.path, n)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", o.path, err)
		}
		r, err := record.Decode(line)
		if err != nil {
			return fmt.Errorf("%s line %d: %w; mend or move the file", o.path, n, err)
		}
		each(r)
		o.good += int64(len(line))
	}
}

// mend cuts off the beginning of a line that a crash left behind. Its records were never acknowledged.
func (o *file) mend(tail []byte) error {
	if len(tail) == 0 {
		return nil
	}
	n := min(len(tail), len(lineStart))
	if !bytes.Equal(tail[:n], lineStart[:n]) {
		return fmt.Errorf("%s ends with something that is no record; move the file away", o.path)
	}
	o.dirty = true
	return o.clean()
}

// clean removes what a write that went wrong has left.
func (o *file) clean() error {
	if !o.dirty {
		return nil
	}
	if err := o.f.Truncate(o.good); err != nil {
		return fmt.Errorf("cut the unfinished line off %s: %w", o.path, err)
	}
	o.dirty = false
	return nil
}

// write appends whole lines and returns when they are on the disk. After an error none of them count.
func (o *file) write(lines []byte) error {
	if o.shut {
		return fmt.Errorf("write to %s: %w", o.path, os.ErrClosed)
	}
	if err := o.clean(); err != nil {
		return err
	}
	o.dirty = true
	if _, err := o.f.WriteAt(lines, o.good); err != nil {
		return fmt.Errorf("write to %s: %w", o.path, err)
	}
	if err := o.f.Sync(); err != nil {
		return fmt.Errorf("write to %s: %w", o.path, err)
	}
	o.good += int64(len(lines))
	o.dirty = false
	return nil
}

// close may be called again.
func (o *file) close() error {
	if o.shut {
		return nil
	}
	o.shut = true
	return o.f.Close()
}
