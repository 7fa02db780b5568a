package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"
)

// conn is one client's connection as mochi sees it, and what the broker knows about it. Its Read follows the
// frames of MQTT, so that a PUBLISH too large to be taken is cut to its head (topic and packet id) without ever being
// in memory: then it can be answered, and not only hung up on.
type conn struct {
	net.Conn
	sink *sink
	r    *bufio.Reader
	max  int // the longest packet that passes uncut, without its fixed header

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	user   *user // nil: without one
	// subscribing is set while a SUBSCRIBE is answered: mochi asks about filters, and about retained messages, all of
	// which the client is to get.
	subscribing atomic.Bool

	window window // towards the client

	// The rest belongs to the reading goroutine.
	v5      bool
	head    []byte // goes out before what is left of the packet
	left    int    // bytes of the packet that are still to come
	passed  uint64 // PUBLISH packets handed to mochi's buffer
	seen    uint64 // PUBLISH packets that mochi has decoded
	cuts    []cut  // those of them that were cut
	held    *session
	moving  bool   // it takes a session over
	leaving bool   // it ends
	asked   uint16 // packet id of the SUBSCRIBE or UNSUBSCRIBE that mochi has under another one
}

func newConn(ctx context.Context, c net.Conn, s *sink, maxLen int) *conn {
	ctx, cancel := context.WithCancel(ctx)
	return &conn{Conn: c, sink: s, r: bufio.NewReaderSize(c, 4096), max: maxLen, ctx: ctx, cancel: cancel}
}

// Close ends the connection and wakes its reader, wherever that waits.
func (c *conn) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// Read hands out whole packets' bytes in order. It waits only while it has nothing to give.
func (c *conn) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(c.head) > 0:
			m := copy(p[n:], c.head)
			c.head = c.head[m:]
			n += m
		case n > 0 && c.r.Buffered() < 8: // a header or a part of a body could make us wait
			return n, nil
		case c.left > 0:
			m, err := c.r.Read(p[n:min(len(p), n+c.left)])
			c.left -= m
			n += m
			if err != nil {
				return n, err
			}
		default:
			if err := c.next(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// next reads the fixed header of the next packet.
func (c *conn) next() error {
	first, err := c.r.ReadByte()
	if err != nil {
		return err
	}
	head := append(make([]byte, 0, 5), first)
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := c.r.ReadByte()
		if err != nil {
			return err
		}
		head = append(head, b)
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return fmt.Errorf("packet length: %w", packets.ErrMalformedVariableByteInteger)
		}
	}
	c.head, c.left = head, length
	if first>>4 != packets.Publish {
		return nil
	}
	c.passed++
	if length > c.max {
		return c.cut(first, length)
	}
	return nil
}

// cut replaces a PUBLISH by its head: no properties, no payload.
func (c *conn) cut(first byte, length int) error {
	var size [2]byte
	if _, err := io.ReadFull(c.r, size[:]); err != nil {
		return err
	}
	rest := int(binary.BigEndian.Uint16(size[:]))
	if first>>1&3 > 0 {
		rest += 2 // the packet id
	}
	if 2+rest > length {
		return packets.ErrMalformedTopic
	}
	body := make([]byte, 2+rest, 2+rest+1)
	copy(body, size[:])
	if _, err := io.ReadFull(c.r, body[2:]); err != nil {
		return err
	}
	if c.v5 {
		body = append(body, 0)
	}
	if _, err := io.CopyN(io.Discard, c.r, int64(length-2-rest)); err != nil {
		return err
	}
	c.cuts = append(c.cuts, cut{nth: c.passed, size: length - 2 - rest})
	c.head = append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
	c.left = 0
	return nil
}

// cut is a PUBLISH that went on without its properties and its payload.
type cut struct {
	nth  uint64 // it was the nth
	size int    // bytes that were left out
}

// wasCut returns how many bytes of the PUBLISH that mochi has just decoded were left out, 0 if it is whole. It is called once for each.
func (c *conn) wasCut() int {
	c.seen++
	if len(c.cuts) == 0 || c.cuts[0].nth != c.seen {
		return 0
	}
	n := c.cuts[0].size
	c.cuts = c.cuts[1:]
	return n
}

// errHangUp is what a hook returns to mochi to end the connection.
var errHangUp = packets.ErrRejectPacket

// isGone says that a connection ended for ordinary reasons.
func isGone(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled)
}
