package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/uplink"
	"github.com/perigee-iot/perigee/sync/uplink/mqttlink"
)

// links are the uplinks, in the order of the configuration.
type links struct {
	list   []*uplink.Uplink
	up     atomic.Int32 // how many are connected
	engine atomic.Pointer[engine.Engine]
}

func newLinks(cfg *config.Config, box *outbox.Outbox, log *slog.Logger) (*links, error) {
	l := &links{}
	for _, u := range cfg.Uplinks {
		link, err := mqttlink.New(mqttlink.Options{
			URL:          u.MQTT.URL,
			Gateway:      cfg.ID,
			ClientID:     fmt.Sprintf("perigee-%s-uplink-%s", cfg.ID, u.Name),
			Username:     u.MQTT.Username,
			PasswordFile: u.MQTT.PasswordFile,
			TLS:          mqttlink.TLS{CA: u.MQTT.TLS.CA, Cert: u.MQTT.TLS.Cert, Key: u.MQTT.TLS.Key},
		})
		if err != nil {
			return nil, fmt.Errorf("uplink %q: %w", u.Name, err)
		}
		l.list = append(l.list, uplink.New(uplink.Options{Name: u.Name, Link: link, Queue: box.Queue(u.Name),
			OnChange: l.changed, Log: log.With("part", "uplink")}))
	}
	return l, nil
}

// changed makes the gateway's events online and offline: online while at least one uplink is connected.
func (l *links) changed(connected bool) {
	what := ""
	if connected {
		if l.up.Add(1) == 1 {
			what = "online"
		}
	} else if l.up.Add(-1) == 0 {
		what = "offline"
	}
	if e := l.engine.Load(); e != nil && what != "" {
		e.Later(func() { e.Event(context.Background(), what) })
	}
}

// start runs the uplinks until the gateway stops.
func (l *links) start(a *App) {
	l.engine.Store(a.engine)
	for _, u := range l.list {
		a.background("uplink", u.Run)
	}
}

func (l *links) status() (out []api.UplinkStatus) {
	for _, u := range l.list {
		s, err := u.Status()
		if err != nil {
			s.LastError = err.Error()
		}
		out = append(out, api.UplinkStatus{Name: s.Name, URL: s.URL, Connected: s.Connected, Paused: s.Paused, LastError: s.LastError,
			Since: s.Since, Waiting: s.Waiting, Sent: s.Sent, Resent: s.Resent, Rate: s.Rate, Drain: s.Drain})
	}
	return out
}

// Uplinks lists the connections to the cloud.
func (a *App) Uplinks(context.Context) ([]api.UplinkStatus, error) { return a.links.status(), nil }

// Streams lists the streams.
func (a *App) Streams(context.Context) ([]api.Stream, error) {
	list, err := a.box.Status()
	out := make([]api.Stream, 0, len(list))
	for _, s := range list {
		out = append(out, api.Stream{Name: s.Name, Uplink: s.Uplink, Priority: s.Priority, Epoch: s.Epoch, First: s.First, Next: s.Next,
			Acked: s.Acked, Waiting: s.Waiting, Bytes: s.Bytes, Oldest: s.Oldest.Truncate(time.Millisecond), Dropped: s.Dropped, Quarantined: s.Quarantined})
	}
	return out, err
}
