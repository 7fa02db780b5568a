package mqttlink

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/perigee-iot/perigee/sync/uplink"
)

// An MQTT broker has one client of an id: when a second one connects under the same, it closes the connection of the first, without a word in
// 3.1.1. Two gateways with one id throw each other out for ever, then. All that can be seen of it is that
// the broker closes connections soon after they began, one after the other, without a complaint about what was sent on them.
const (
	briefly = 30 * time.Second // a connection that ends so soon is suspicious
	often   = 3                // so many in a row are a rival
	calmly  = 5 * time.Minute  // a connection that lasts so long has none. It is longer than a rival's back-off
)

// rivals counts the connections in a row that look like the work of another client with the same id. The zero value is ready.
type rivals struct {
	mu  sync.Mutex
	row int
}

// none notes something that a rival does not do.
func (r *rivals) none() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.row = 0
}

// lost notes that the broker closed a connection after a time, and says whether there seems to be a rival. If its reason may have been
// what was sent, it says nothing about rivals.
func (r *rivals) lost(after time.Duration, unclear bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := briefly
	if r.row >= often {
		limit = calmly
	}
	switch {
	case after >= limit:
		r.row = 0
	case !unclear:
		r.row++
	}
	return r.row >= often
}

// judge makes an error for people of paho's reason for the end of a connection.
func (c *conn) judge(why error) error {
	l := c.link
	if !closedByPeer(why) {
		l.rivals.none()
		return fmt.Errorf("the connection to %s ended: %w", l.shown, why)
	}
	c.mu.Lock()
	after := time.Since(c.opened)
	unclear := c.online == nil || !acknowledged(c.online) || c.sent > c.answers && c.answers == 0
	c.mu.Unlock()
	if !l.rivals.lost(after, unclear) {
		return fmt.Errorf("the broker closed the connection to %s: %w", l.shown, why)
	}
	return &uplink.ContestedError{Hint: fmt.Sprintf("the broker keeps closing the connection: probably another client has the same id, %q; "+
		"give each gateway its own id: in gateway.yaml", l.o.ClientID)}
}

// closedByPeer says that the far side ended a connection in order, or in a hurry: not that the line is dead.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func acknowledged(t mqtt.Token) bool {
	select {
	case <-t.Done():
		return t.Error() == nil
	default:
		return false
	}
}
