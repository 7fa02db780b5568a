package receiver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/sync/record"
)

var errBad = errors.New("the batch makes no sense")

// hook stands between the broker and its clients.
type hook struct {
	mqtt.HookBase
	r *Receiver
}

// ID implements mqtt.Hook.
func (h *hook) ID() string { return "perigee-receiver" }

// Provides implements mqtt.Hook.
func (h *hook) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck || b == mqtt.OnPublish
}

// OnConnectAuthenticate lets a client in that knows the password, if there is one.
func (h *hook) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	o := h.r.o
	same := func(a []byte, b string) bool { return subtle.ConstantTimeCompare(a, []byte(b)) == 1 }
	user := o.Username == "" || same(pk.Connect.Username, o.Username)
	password := o.Password == "" || same(pk.Connect.Password, o.Password)
	return user && password
}

// OnACLCheck allows everything: whoever is let in is trusted.
func (h *hook) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// OnPublish takes a batch before the broker acknowledges it. Only ErrRejectPacket keeps the broker from doing that; the connection then
// ends too, since the gateway would otherwise wait for an answer that never comes.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	gateway, stream, ok := streamOf(pk.TopicName)
	if !ok {
		return pk, nil
	}
	err := h.r.take(gateway, stream, pk.Payload)
	switch {
	case err == nil:
		return pk, nil
	case errors.Is(err, errBad):
		h.r.o.Log.Error("a batch makes no sense; it is acknowledged and dropped", "topic", pk.TopicName, "client", cl.ID, "error", err)
		return pk, packets.CodeSuccessIgnore
	}
	h.r.o.Log.Error("a batch could not be kept; it is not acknowledged, so it will come again", "topic", pk.TopicName, "client", cl.ID, "error", err)
	cl.Stop(err)
	return pk, packets.ErrRejectPacket
}

// streamOf takes {prefix}/{gateway}/streams/{stream} apart.
func streamOf(topic string) (gateway, stream string, ok bool) {
	level := strings.Split(topic, "/")
	n := len(level)
	if n < 4 || level[n-2] != "streams" {
		return "", "", false
	}
	return level[n-3], level[n-1], true
}

// take keeps what is new in a batch. On an error nothing of it is kept.
func (r *Receiver) take(gateway, stream string, payload []byte) error {
	recs, err := record.DecodeBatch(payload)
	if err == nil {
		for _, rec := range recs {
			if rec.Gateway != gateway || rec.Stream != stream {
				err = fmt.Errorf("it holds %s", rec.Identity)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := streamID{gateway, stream}
	if err == nil && r.tracks[id] == nil && len(r.tracks) >= maxStreams {
		err = fmt.Errorf("there are %d streams already", maxStreams)
	}
	if err != nil {
		r.stats.Refused++
		return fmt.Errorf("%w: %w", errBad, err)
	}
	t := &track{}
	if old := r.tracks[id]; old != nil {
		t = old.clone()
	}
	var fresh []*record.Record
	var lines []byte
	for _, rec := range recs {
		if t.take(rec) {
			fresh = append(fresh, rec)
			lines = append(rec.Append(lines), '\n')
		}
	}
	if r.out != nil && len(lines) > 0 {
		if err := r.out.write(lines); err != nil {
			r.stats.Failed++
			return err
		}
	}
	r.warn(id, r.tracks[id], t)
	r.tracks[id] = t
	for _, rec := range fresh {
		for _, fn := range r.subs {
			fn(*rec)
		}
	}
	return nil
}

// warn logs what somebody should look at.
func (r *Receiver) warn(id streamID, before, after *track) {
	if before == nil {
		before = &track{}
	}
	var was, is int64
	for _, c := range before.epochs {
		was += c.absent()
	}
	for _, c := range after.epochs {
		is += c.absent()
	}
	if is > was {
		r.o.Log.Warn("sequences are missing", "gateway", id.gateway, "stream", id.stream, "missing", is-was)
	}
	if after.clashes > before.clashes {
		r.o.Log.Warn("two live epochs under one gateway id; give each gateway its own", "gateway", id.gateway, "stream", id.stream)
	}
}

// quiet passes on only the errors of the broker: it warns of every connection that a gateway ends.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && q.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
