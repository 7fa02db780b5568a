package chaos

import (
	bytesof "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// plug is a disk with a write cache whose power can be cut: a server of network block devices (NBD), which qemu speaks. What was
// written and not flushed when the power goes is kept or lost by chance, sector by sector and in any order, as on a real card.
type plug struct {
	t               *testing.T
	l               net.Listener
	accepts, served sync.WaitGroup

	mu      sync.Mutex
	now     []byte  // as the guest sees it
	safe    []byte  // what survives for certain
	pending []write // since the last flush
	flushes int
}

type write struct {
	at   uint64
	data []byte
}

const sector = 512

// newPlug serves a disk with an empty ext4 file system of so many MiB.
func newPlug(t *testing.T, mib int64) *plug {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, mib<<20))
	command(t, "mkfs.ext4", "-q", "-F", image)
	p := &plug{t: t}
	var err error
	p.safe, err = os.ReadFile(image)
	require.NoError(t, err)
	p.now = append([]byte{}, p.safe...)
	p.l, err = net.Listen("unix", filepath.Join(t.TempDir(), "nbd"))
	require.NoError(t, err)
	p.accepts.Go(p.accept)
	t.Cleanup(func() { _ = p.l.Close(); p.accepts.Wait(); p.served.Wait() })
	return p
}

// drive is what qemu calls it.
func (p *plug) drive() string { return "nbd:unix:" + p.l.Addr().String() }

func (p *plug) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock() // a WaitGroup must not be added to while somebody begins to wait
		p.served.Go(func() {
			defer c.Close()
			if err := p.serve(c); errors.Is(err, errNBD) {
				p.t.Error(err)
			}
		})
		p.mu.Unlock()
	}
}

// unplugged waits until nobody uses the disk any more.
func (p *plug) unplugged() {
	p.mu.Lock()
	p.mu.Unlock() //nolint:staticcheck // who has been accepted is counted now
	p.served.Wait()
}

// cut loses what chance takes of what was not flushed, and returns how many writes that were and how many of them are lost, wholly or in parts.
// Nobody may use the disk meanwhile.
func (p *plug) cut() (unsafe, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rand.Shuffle(len(p.pending), func(i, j int) { p.pending[i], p.pending[j] = p.pending[j], p.pending[i] })
	keep := rand.IntN(3) // of three: nothing, a third, two thirds
	for _, w := range p.pending {
		torn := false
		for i := 0; i < len(w.data); i += sector {
			if rand.IntN(3) < keep {
				copy(p.safe[w.at+uint64(i):], w.data[i:min(i+sector, len(w.data))])
			} else {
				torn = true
			}
		}
		if torn {
			lost++
		}
	}
	unsafe, p.pending = len(p.pending), nil
	copy(p.now, p.safe)
	return unsafe, lost
}

func (p *plug) flush() {
	for _, w := range p.pending {
		copy(p.safe[w.at:], w.data)
	}
	p.pending = p.pending[:0]
	p.flushes++
}

var errNBD = errors.New("a request to the disk makes no sense")

// The numbers of the protocol that are used here.
const (
	nbdOption, nbdOptionReply = 0x49484156454F5054, 0x3e889045565a9
	nbdRequest, nbdReply      = 0x25609513, 0x67446698
	nbdInfo, nbdGo            = 6, 7
	nbdFlags                  = 1 | 4 | 8 // flags are sent; it knows flush, and writes that are flushed at once (FUA)
)

func (p *plug) serve(c net.Conn) error {
	if err := p.negotiate(c); err != nil {
		return err
	}
	var q struct {
		Magic       uint32
		Flags, Type uint16
		Handle, At  uint64
		Length      uint32
	}
	for {
		if err := bytesof.Read(c, bytesof.BigEndian, &q); err != nil {
			return err
		}
		if q.Magic != nbdRequest || q.Length > 64<<20 || q.At+uint64(q.Length) > uint64(len(p.now)) && q.Type < 2 {
			return fmt.Errorf("%w: %+v", errNBD, q)
		}
		var data []byte
		if q.Type == 1 {
			data = make([]byte, q.Length)
			if _, err := io.ReadFull(c, data); err != nil {
				return err
			}
		}
		if q.Type == 2 {
			return nil
		}
		answer := bytesof.BigEndian.AppendUint32(nil, nbdReply)
		answer = bytesof.BigEndian.AppendUint32(answer, 0)
		answer = bytesof.BigEndian.AppendUint64(answer, q.Handle)
		p.mu.Lock()
		switch q.Type {
		case 0:
			answer = append(answer, p.now[q.At:q.At+uint64(q.Length)]...)
		case 1:
			copy(p.now[q.At:], data)
			p.pending = append(p.pending, write{q.At, data})
			if q.Flags&1 != 0 {
				p.flush()
			}
		case 3:
			p.flush()
		default:
			bytesof.BigEndian.PutUint32(answer[4:], 22) // EINVAL
		}
		p.mu.Unlock()
		if _, err := c.Write(answer); err != nil {
			return err
		}
	}
}

// negotiate offers the one disk that there is.
func (p *plug) negotiate(c net.Conn) error {
	hello := append([]byte("NBDMAGIC"), bytesof.BigEndian.AppendUint64(nil, nbdOption)...)
	if _, err := c.Write(append(hello, 0, 1|2)); err != nil {
		return err
	}
	var flags uint32
	if err := bytesof.Read(c, bytesof.BigEndian, &flags); err != nil {
		return err
	}
	for {
		var o struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := bytesof.Read(c, bytesof.BigEndian, &o); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, c, int64(o.Length)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			b := bytesof.BigEndian.AppendUint64(nil, nbdOptionReply)
			b = bytesof.BigEndian.AppendUint32(b, o.Option)
			b = bytesof.BigEndian.AppendUint32(b, kind)
			b = bytesof.BigEndian.AppendUint32(b, uint32(len(data)))
			_, err := c.Write(append(b, data...))
			return err
		}
		if o.Option != nbdInfo && o.Option != nbdGo {
			if err := reply(1<<31+1, nil); err != nil { // not known
				return err
			}
			continue
		}
		info := bytesof.BigEndian.AppendUint64([]byte{0, 0}, uint64(len(p.now)))
		if err := reply(3, bytesof.BigEndian.AppendUint16(info, nbdFlags)); err != nil {
			return err
		}
		if err := reply(1, nil); err != nil {
			return err
		}
		if o.Option == nbdGo {
			return nil
		}
	}
}
