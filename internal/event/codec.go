package event

import (
	"fmt"
	"math"
	"time"

	"github.com/perigee-iot/perigee/internal/wire"
)

// codecVersion is the first byte of an encoded event; a new layout gets a new one.
const codecVersion = 1

// Encode appends the event to w, in the form that the inbox and the frames to workers use.
func (e *Event) Encode(w *wire.Writer) {
	w.Byte(codecVersion)
	w.String(e.ID)
	w.String(e.Source)
	w.String(e.Type)
	w.String(e.Subject)
	w.Int(e.Time.UnixMilli())
	w.Bool(e.TimeOK)
	w.Uint(e.Seq)
	w.Uint(uint64(e.Boot))
	w.Int(int64(e.Mono))
	w.Bytes(e.Data)
	w.String(e.Topic)
	w.Bool(e.Retained)
	w.String(e.Key)
	w.Bool(e.HasKey)
	w.Uint(uint64(e.Chain))
}

// bounded reads an integer that must fit; a larger one was not written by Encode.
func bounded(r *wire.Reader, limit uint64) uint64 {
	v := r.Uint()
	if v > limit {
		r.Fail("%d where at most %d is allowed", v, limit)
		return 0
	}
	return v
}

// Decode reads an event that Encode wrote. Its Data shares the reader's memory.
func Decode(r *wire.Reader) (*Event, error) {
	if v := r.Byte(); r.Err() == nil && v != codecVersion {
		return nil, fmt.Errorf("event encoded in version %d, this gateway reads version %d", v, codecVersion)
	}
	e := &Event{
		ID:      r.String(),
		Source:  r.String(),
		Type:    r.String(),
		Subject: r.String(),
		Time:    time.UnixMilli(r.Int()).UTC(),
		TimeOK:  r.Bool(),
		Seq:     r.Uint(),
		Boot:    uint32(bounded(r, math.MaxUint32)),
		Mono:    time.Duration(r.Int()),
		Data:    r.Bytes(),
		Topic:   r.String(),
	}
	e.Retained = r.Bool()
	e.Key = r.String()
	e.HasKey = r.Bool()
	e.Chain = uint16(bounded(r, math.MaxUint16))
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	return e, nil
}
