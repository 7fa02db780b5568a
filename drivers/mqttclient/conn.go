package mqttclient

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxPacket is the largest packet that is read into memory. paho believes the length that the broker announces, up to
// 256 MB, and allocates it at once; what is longer than this is skipped on the wire and never reaches paho.
const maxPacket = 1 << 20

// Packet types of MQTT 3.1.1, as the first byte of the packets that are handled here.
const (
	typePublish  = 0x30
	typePuback   = 0x40
	typePubrec   = 0x50
	typeSuback   = 0x90
	pingreq      = 0xC0
	disconnectRq = 0xE0
)

var (
	errClosed = errors.New("closed by the gateway")
	errFrame  = errors.New("the broker does not speak MQTT 3.1.1")
)

// conn is the connection under paho. It reads through a buffer (paho asks for a packet's header byte by byte), checks
// the frames before paho allocates anything for them, notices a broker that has fallen silent, and lets others write
// whole packets between paho's: acknowledgements and pings.
//
// A silent broker is noticed by a deadline on each read of the socket, so only while somebody reads: as long as the
// gateway has no room for a message nobody does, and the connection stays up, kept by pings that need no answer.
type conn struct {
	net.Conn
	in       *bufio.Reader
	left     int           // bytes of the present packet that paho has not read yet
	silence  atomic.Int64  // the longest a read may wait, in nanoseconds
	patience time.Duration // the longest a write may take
	codes    atomic.Int32  // how many return codes the next SUBACK may have

	// tooLarge is told of a PUBLISH that was skipped, from the reading goroutine.
	tooLarge func(first byte, id uint16, topic string, size int)

	writing   sync.Mutex // one packet at a time
	lastWrite atomic.Int64

	failOnce sync.Once
	failed   func(error) // called once, with why the connection ended, unless we ended it
}

func newConn(nc net.Conn, silence, patience time.Duration) *conn {
	c := &conn{Conn: nc, patience: patience, failed: func(error) {}}
	c.tooLarge = func(byte, uint16, string, int) {}
	c.silence.Store(int64(silence))
	c.in = bufio.NewReaderSize(socket{c}, 4096)
	return c
}

// socket is the reading side of the net.Conn, with a fresh deadline for every read.
type socket struct{ c *conn }

func (s socket) Read(p []byte) (int, error) {
	d := time.Duration(s.c.silence.Load())
	if err := s.c.Conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return 0, err
	}
	n, err := s.c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the broker has said nothing for %v", d)
	}
	return n, err
}

// Read gives paho the bytes of the next packet. Every error ends the connection and becomes io.EOF, because paho
// quietly stops on "use of closed network connection" and would never report the end.
func (c *conn) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.next(); err != nil {
			c.fail(err)
			return 0, io.EOF
		}
	}
	n, err := c.in.Read(p[:min(len(p), c.left)])
	c.left -= n
	if err != nil {
		c.fail(err)
		return n, io.EOF
	}
	return n, nil
}

// next looks at the header of the next packet and sets left, skipping publishes that are too large.
func (c *conn) next() error {
	for {
		header, length, err := c.header()
		if err != nil {
			return err
		}
		first, _ := c.in.Peek(1)
		switch kind := first[0] & 0xF0; {
		case kind == typePublish && length > maxPacket:
			if err := c.skip(header, length); err != nil {
				return err
			}
			continue
		case length > maxPacket:
			return fmt.Errorf("%w: a packet of %d bytes", errFrame, length)
		case kind == typeSuback && length > 2+int(c.codes.Load()):
			return fmt.Errorf("%w: it acknowledges more subscriptions than were asked for", errFrame)
		}
		c.left = header + length
		return nil
	}
}

// header returns the lengths of the fixed header and of what follows it, without consuming anything.
func (c *conn) header() (header, length int, err error) {
	for n := 2; n <= 5; n++ {
		b, err := c.in.Peek(n)
		if err != nil {
			return 0, 0, err
		}
		length |= int(b[n-1]&0x7F) << (7 * (n - 2))
		if b[n-1]&0x80 == 0 {
			return n, length, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: a length of more than four bytes", errFrame)
}

// skip reads a PUBLISH past its payload and reports it.
func (c *conn) skip(header, length int) error {
	head := make([]byte, header+2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return err
	}
	topic := make([]byte, binary.BigEndian.Uint16(head[header:]))
	if _, err := io.ReadFull(c.in, topic); err != nil {
		return err
	}
	read, id := 2+len(topic), uint16(0)
	if head[0]&0x06 != 0 {
		var b [2]byte
		if _, err := io.ReadFull(c.in, b[:]); err != nil {
			return err
		}
		read, id = read+2, binary.BigEndian.Uint16(b[:])
	}
	if _, err := io.CopyN(io.Discard, c.in, int64(length-read)); err != nil {
		return err
	}
	c.tooLarge(head[0], id, string(topic), length-read)
	return nil
}

// Write writes whole packets. It may be called from any goroutine.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	now := time.Now()
	c.lastWrite.Store(now.UnixNano())
	err := c.Conn.SetWriteDeadline(now.Add(c.patience))
	if err != nil {
		c.fail(err)
		return 0, io.EOF
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the broker has read nothing for %v", c.patience)
	}
	if err != nil {
		c.fail(err)
		return n, io.EOF
	}
	return n, nil
}

// ping writes a PINGREQ if nothing has been written for d. paho stops pinging while an answer is outstanding, and no
// answer is read while the gateway has no room.
func (c *conn) ping(d time.Duration) {
	if time.Since(time.Unix(0, c.lastWrite.Load())) >= d {
		_, _ = c.Write([]byte{pingreq, 0})
	}
}

// fail ends the connection; the first reason counts.
func (c *conn) fail(err error) {
	c.failOnce.Do(func() {
		if errors.Is(err, io.EOF) {
			err = errors.New("the broker closed the connection")
		}
		_ = c.Conn.Close()
		if !errors.Is(err, errClosed) {
			c.failed(err)
		}
	})
}

// Close ends the connection, as paho and the gateway itself do.
func (c *conn) Close() error {
	c.fail(errClosed)
	return nil
}

// Deadlines are the connection's own affair: paho sets them for its handshake, publishes only, and would undo ours.

// SetDeadline does nothing.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
