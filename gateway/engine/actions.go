package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// action is a publish, a device write or an HTTP call that was decided and is to be carried out. It stands in the journal from the update
// that decided it until it is done: Journal / target / order → action. After a crash it is carried out again, with
// the same id.
type action struct {
	id       string
	target   string
	order    uint64
	fn       string
	event    string
	topic    string // publish
	value    []byte // payload, or a JSON scalar for a device
	qos      byte
	retain   bool
	chain    uint16
	boot     uint32
	device   bool          // it writes a device, if by a publish
	hold     time.Duration // device: how long the value stays
	deadline time.Duration // on the gateway's clock; 0: none
	wall     int64         // the same on the wall clock in ms, if that was synchronised; else 0
	life     *life         // of its event; not stored
	void     bool          // was not carried out, and never will be; not stored
	counted  *target       // that counts it as coming, until it has it; not stored

	// Of an HTTP call, not stored:
	tries  int    // that have arrived
	status int    // of the last answer
	answer []byte // data of the event that tells what it came to
}

// actionVersion 2 says whether a device is written.
const actionVersion = 2

// brokerTarget is the target of publishes. Those of devices are named by deviceTarget.
const brokerTarget = "broker"

func deviceTarget(name string) string { return "device/" + name }

func (a *action) journalKey() store.Key {
	return store.NewKey(store.Journal).String(a.target).Uint(a.order)
}

func (a *action) encode() []byte {
	w := wire.NewWriter(nil)
	w.Byte(actionVersion)
	w.String(a.id)
	w.String(a.fn)
	w.String(a.event)
	w.String(a.topic)
	w.Bytes(a.value)
	w.Byte(a.qos)
	w.Bool(a.retain)
	w.Uint(uint64(a.chain))
	w.Uint(uint64(a.boot))
	w.Int(int64(a.hold))
	w.Int(int64(a.deadline))
	w.Int(a.wall)
	w.Bool(a.device)
	return w.Data()
}

func decodeAction(key, value []byte) (*action, error) {
	k := store.Parse(key)
	a := &action{target: k.String(), order: k.Uint()}
	r := wire.NewReader(value)
	v := r.Byte()
	if r.Err() == nil && v != 1 && v != actionVersion {
		return nil, fmt.Errorf("a journal entry of version %d, this gateway reads version %d", v, actionVersion)
	}
	a.id, a.fn, a.event, a.topic = r.String(), r.String(), r.String(), r.String()
	a.value = append([]byte(nil), r.Bytes()...)
	a.qos, a.retain = r.Byte(), r.Bool()
	a.chain, a.boot = uint16(r.Uint()), uint32(r.Uint())
	a.hold, a.deadline, a.wall = time.Duration(r.Int()), time.Duration(r.Int()), r.Int()
	if a.device = strings.HasPrefix(a.target, "device/"); v >= 2 {
		a.device = r.Bool()
	}
	return a, errors.Join(k.Err(), r.Done())
}

// newAction makes the action of an effect.
func (e *Engine) newAction(j *job, x *functions.Effect, index int) *action {
	a := &action{
		id:     actionID(j.ev.ID, j.fn.Name, index),
		target: brokerTarget,
		order:  e.seq.next(),
		fn:     j.fn.Name,
		event:  j.ev.ID,
		topic:  x.Name,
		value:  x.Value,
		qos:    x.QoS,
		retain: x.Retain,
		chain:  j.ev.Chain + 1,
		boot:   e.clock.Boot(),
		hold:   x.For,
		life:   j.life,
	}
	if x.Kind == functions.WriteDevice {
		a.topic, a.device = "", true
		if d := e.plant.device(x.Name); d != nil && d.Actuator != nil {
			a.target = deviceTarget(x.Name)
		} else if d != nil && d.Feed != nil {
			// A device behind MQTT is written by a publish. Its value travels as it stands: 21.5, ON.
			a.topic, a.qos, a.hold = d.Feed.Write, 1, 0
			if v, err := rules.Scalar(x.Value); err == nil {
				if s, ok := v.(string); ok {
					a.value = []byte(s)
				}
			}
		}
	} else if x.Kind == functions.CallHTTP {
		a.web(j, x)
	} else if x.WithID {
		a.value = withID(a.value, a.id)
	}
	if x.NotAfter > 0 {
		a.deadline = e.clock.Now() + x.NotAfter
		if now, ok := e.clock.Wall(); ok {
			a.wall = now.Add(x.NotAfter).UnixMilli()
		}
	}
	return a
}

// expired says that an action is of no use any more. The gateway's clock does not count the time for which the box was off, so that
// after a boot the wall clock is asked, too, as far as it is known to be right.
func (e *Engine) expired(a *action) bool {
	if a.deadline == 0 {
		return false
	}
	if e.clock.Now() > a.deadline {
		return true
	}
	if a.boot == e.clock.Boot() {
		return false
	}
	now, ok := e.clock.Wall()
	return ok && a.wall != 0 && now.UnixMilli() > a.wall
}

// loadJournal gives every target the actions that the last run left. Writes to devices that were decided before the
// machine's last boot are dropped: the world has changed since.
func (e *Engine) loadJournal() error {
	var drop [][]byte
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Journal), nil, func(k, v []byte) bool {
			a, err := decodeAction(k, v)
			if err != nil {
				e.log.Error("an entry of the journal of actions cannot be read and is dropped", "error", err)
				e.losses.add("damaged", 1)
				drop = append(drop, append([]byte(nil), k...))
				return true
			}
			t := e.plant.targetLeft(a.target)
			stale := a.device && a.boot != e.clock.Boot()
			if t == nil || stale {
				drop = append(drop, append([]byte(nil), k...))
				return true
			}
			t.add(a)
			return true
		})
	})
	if err != nil {
		return fmt.Errorf("read the journal of actions: %w", err)
	}
	if len(drop) == 0 {
		return nil
	}
	e.log.Warn("actions were dropped: of an earlier boot, or for a device that is not configured any more", "actions", len(drop))
	e.losses.add("actions of an earlier boot or for a removed device", int64(len(drop)))
	for len(drop) > 0 {
		n := min(len(drop), 500)
		err := e.st.Update(func(tx store.Tx) error {
			for _, k := range drop[:n] {
				tx.Delete(k)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("drop actions of an earlier boot: %w", err)
		}
		drop = drop[n:]
	}
	return nil
}

// carryOut hands durable actions to their targets.
func (e *Engine) carryOut(acts []*action) {
	for _, a := range acts {
		a.acts("waiting", "")
		e.plant.give(a)
	}
}
