package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// The mark is a file beside the database that says which transaction was durable last. A log that ends too early, since a block
// of it is gone or all of it, looks like one that was never longer, and Badger opens it without a word; the mark knows better.
//
// It is written after each group and never synced: after a kill it is exact, after a power cut at most some seconds old, and never
// ahead of what was synced. Since its one block is written in place, it costs the flash a write in half a minute.

const (
	markName = "last"
	markSize = 16 + 8 + 4 // epoch, version, checksum
)

// mark is the open file. One that cannot be opened is nil, and done without.
type mark struct{ f *os.File }

func openMark(dir string) *mark {
	f, err := os.OpenFile(filepath.Join(dir, markName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil
	}
	return &mark{f}
}

// read returns the version that was durable last, and in the store of which epoch; 0 if it is not known.
func (m *mark) read() (epoch string, version uint64) {
	var b [markSize]byte
	if m == nil {
		return "", 0
	}
	if _, err := m.f.ReadAt(b[:], 0); err != nil || crc32.ChecksumIEEE(b[:24]) != binary.BigEndian.Uint32(b[24:]) {
		return "", 0
	}
	return string(b[:16]), binary.BigEndian.Uint64(b[16:])
}

func (m *mark) write(epoch string, version uint64) {
	if m == nil {
		return
	}
	b := append(make([]byte, 0, markSize), epoch...)
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	_, _ = m.f.WriteAt(b, 0)
}

func (m *mark) close() {
	if m != nil {
		_ = m.f.Close()
	}
}

// deletionKey is put into transactions that only delete. Versions stay as long as a key that was put with them is the newest of
// its name, while compaction forgets deleted keys with theirs.
var deletionKey = NewKey(Meta).String("store/deletion")

// missLast compares what was opened with the mark. If the end of what was written is gone, what is left goes on under a new
// epoch, since the sequences of streams have gone back.
func (s *Store) missLast(d *disk, epoch string) (string, error) {
	s.mark = openMark(s.dir)
	of, was := s.mark.read()
	is := d.version()
	switch {
	case d.begun && was > 0 && s.stats.SetAside == "":
		s.stats.Lost = fmt.Sprintf("everything that was written to %s is gone: the store began anew", d.dir)
		s.log.Error("the store is gone: a new one has begun", "dir", d.dir)
		s.mark.write(epoch, is)
		return epoch, nil
	case of != epoch, is >= was:
		s.mark.write(epoch, is)
		return epoch, nil
	}
	s.stats.Lost = fmt.Sprintf("what was written to %s last is gone, as after damage to its newest files: %d groups of outcomes; all is as it was before them",
		d.dir, was-is)
	s.log.Error("the store has lost what was written last", "dir", d.dir, "groups", was-is)
	epoch = newEpoch()
	err := d.commit(map[string]entry{string(epochKey): {value: []byte(epoch)}})
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return "", fmt.Errorf("beginning a new epoch in %s: %w", d.dir, err)
	}
	s.mark.write(epoch, d.version())
	return epoch, nil
}
