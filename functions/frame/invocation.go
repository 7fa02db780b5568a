package frame

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/wire"
)

const (
	maxParams = 128
	maxList   = 1024 // permissions of one kind
	maxHints  = 1024
	maxName   = 4 << 10 // of state, a topic, a device, a stream
	maxErr    = 1 << 10
)

// AppendRun appends a Run frame. Hints that would not fit are left out: the worker asks for what it lacks.
func AppendRun(buf []byte, inv *functions.Invocation) ([]byte, error) {
	p := &inv.Perms
	if n := max(len(p.ReadDevices), len(p.WriteDevices), len(p.Publish), len(p.Streams), len(p.HTTP), len(p.Secrets)); n > maxList {
		return buf, fmt.Errorf("%w: %d permissions of one kind, at most %d", ErrTooBig, n, maxList)
	}
	if n := len(inv.Params); n > maxParams {
		return buf, fmt.Errorf("%w: %d params, at most %d", ErrTooBig, n, maxParams)
	}
	out, err := appendRun(buf, inv, inv.Hints[:min(len(inv.Hints), maxHints)])
	if err != nil && len(inv.Hints) > 0 {
		return appendRun(buf, inv, nil)
	}
	return out, err
}

func appendRun(buf []byte, inv *functions.Invocation, hints []functions.ReadAnswer) ([]byte, error) {
	w := begin(buf, Run)
	w.Uint(inv.ID)
	w.String(inv.Function)
	w.String(inv.Revision)
	inv.Event.Encode(w)
	w.Uint(uint64(len(inv.Params)))
	for _, name := range slices.Sorted(maps.Keys(inv.Params)) {
		w.String(name)
		w.String(inv.Params[name])
	}
	w.String(inv.Key)
	w.Bool(inv.NoKey)
	w.Uint(uint64(max(inv.Attempt, 0)))
	w.Int(inv.Now.Unix())
	w.Uint(uint64(inv.Now.Nanosecond()))
	w.Bool(inv.NowOK)
	w.Uint(inv.Seed)
	w.String(inv.Gateway)
	w.Bytes(inv.Env)
	putLimits(w, &inv.Limits)
	for _, list := range [][]string{inv.Perms.ReadDevices, inv.Perms.WriteDevices, inv.Perms.Publish, inv.Perms.Streams, inv.Perms.Secrets} {
		w.Uint(uint64(len(list)))
		for _, s := range list {
			w.String(s)
		}
	}
	w.Uint(uint64(len(inv.Perms.HTTP)))
	for _, h := range inv.Perms.HTTP {
		w.String(h.Origin)
		w.String(h.Path)
		w.Bool(h.Prefix)
		w.Bool(h.Private)
	}
	w.Uint(uint64(len(inv.Secrets)))
	for _, s := range inv.Secrets {
		w.String(s.Name)
		w.String(s.Value)
	}
	w.Uint(uint64(len(hints)))
	for i := range hints {
		h := &hints[i]
		w.Byte(byte(h.Kind))
		w.String(h.Name)
		w.Bytes(h.Value)
		w.String(h.Err)
	}
	return end(w, len(buf), maxRun)
}

// DecodeRun decodes the body of a Run frame. The invocation shares its memory.
func DecodeRun(body []byte) (*functions.Invocation, error) {
	d := decode(body)
	inv := &functions.Invocation{ID: d.Uint(), Function: d.String(), Revision: d.capped(maxDigest)}
	e, err := event.Decode(d.Reader)
	if err != nil {
		d.breach("%v", err)
	}
	inv.Event = e
	n := d.Count(maxParams)
	inv.Params = make(map[string]string, n)
	for range n {
		name := d.String()
		inv.Params[name] = d.String()
	}
	inv.Key = d.String()
	inv.NoKey = d.Bool()
	inv.Attempt = d.number()
	sec := d.Int()
	inv.Now = time.Unix(sec, int64(d.Uint()%1e9)).UTC()
	inv.NowOK = d.Bool()
	inv.Seed = d.Uint()
	inv.Gateway = d.String()
	inv.Env = d.Bytes()
	getLimits(d, &inv.Limits)
	for _, list := range []*[]string{&inv.Perms.ReadDevices, &inv.Perms.WriteDevices, &inv.Perms.Publish, &inv.Perms.Streams, &inv.Perms.Secrets} {
		for range d.Count(maxList) {
			*list = append(*list, d.String())
		}
	}
	for range d.Count(maxList) {
		inv.Perms.HTTP = append(inv.Perms.HTTP, functions.HTTPRule{Origin: d.String(), Path: d.String(), Prefix: d.Bool(), Private: d.Bool()})
	}
	for range d.Count(maxList) {
		inv.Secrets = append(inv.Secrets, functions.Secret{Name: d.String(), Value: d.String()})
	}
	if n := d.Count(maxHints); n > 0 {
		inv.Hints = make([]functions.ReadAnswer, n)
	}
	for i := range inv.Hints {
		h := &inv.Hints[i]
		h.Read = getRead(d)
		h.Value = d.Bytes()
		h.Err = d.String()
	}
	return inv, d.done(Run)
}

func putLimits(w *wire.Writer, l *functions.Limits) {
	w.Int(int64(l.Timeout))
	w.Int(l.Memory)
	for _, n := range []int{l.Concurrency, l.Effects, l.EffectBytes, l.LogBytes, l.Result, l.Reads} {
		w.Uint(uint64(max(n, 0)))
	}
	w.Int(l.State)
}

func getLimits(d *decoder, l *functions.Limits) {
	l.Timeout = time.Duration(d.Int())
	l.Memory = d.Int()
	for _, n := range []*int{&l.Concurrency, &l.Effects, &l.EffectBytes, &l.LogBytes, &l.Result, &l.Reads} {
		*n = d.number()
	}
	l.State = d.Int()
}

// number reads an int that is not negative, also where int has 32 bits.
func (d *decoder) number() int {
	v := d.Uint()
	if v > math.MaxInt32 {
		d.breach("the number %d is too large", v)
		return 0
	}
	return int(v)
}

// AppendAsk appends an Ask frame: the invocation id reads r.
func AppendAsk(buf []byte, id uint64, r functions.Read) ([]byte, error) {
	w := begin(buf, Ask)
	w.Uint(id)
	w.Byte(byte(r.Kind))
	w.String(r.Name)
	if len(r.Name) > maxName {
		return buf, nameTooBig(r.Name)
	}
	return end(w, len(buf), maxAsk)
}

// DecodeAsk decodes the body of an Ask frame.
func DecodeAsk(body []byte) (uint64, functions.Read, error) {
	d := decode(body)
	id := d.Uint()
	r := getRead(d)
	return id, r, d.done(Ask)
}

func getRead(d *decoder) functions.Read {
	r := functions.Read{Kind: functions.ReadKind(d.Byte())}
	if d.Err() == nil && (r.Kind < functions.ReadState || r.Kind > functions.ReadDevice) {
		d.breach("a read of kind %d", r.Kind)
	}
	r.Name = d.capped(maxName)
	return r
}

// AppendAnswer appends an Answer frame; what was asked need not be repeated.
func AppendAnswer(buf []byte, id uint64, a functions.ReadAnswer) ([]byte, error) {
	w := begin(buf, Answer)
	w.Uint(id)
	w.Bytes(a.Value)
	w.String(clip(a.Err, maxErr))
	return end(w, len(buf), maxAnswer)
}

// DecodeAnswer decodes the body of an Answer frame. The value shares its memory.
func DecodeAnswer(body []byte) (uint64, functions.ReadAnswer, error) {
	d := decode(body)
	id := d.Uint()
	a := functions.ReadAnswer{Value: d.Bytes(), Err: d.capped(maxErr)}
	return id, a, d.done(Answer)
}
