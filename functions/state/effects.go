package state

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// maxKeys bounds what keys() returns to a function.
const maxKeys = 1000

// Apply writes one effect on state, of an invocation for key. Limit is the quota of all of the function's state, in bytes.
func Apply(tx store.Tx, function, key string, x *functions.Effect, limit int64) error {
	ref := Keyed(function, key)
	switch x.Kind {
	case functions.SetShared, functions.DeleteShared, functions.IncrShared:
		ref = Shared(function)
	}
	switch x.Kind {
	case functions.SetState, functions.SetShared:
		return Set(tx, ref, x.Name, x.Value, limit)
	case functions.DeleteState, functions.DeleteShared:
		return Delete(tx, ref, x.Name)
	case functions.IncrState, functions.IncrShared:
		return Incr(tx, ref, x.Name, x.By, limit)
	}
	return fmt.Errorf("effect %d is no effect on state", x.Kind)
}

// Answer answers what a function reads of one of its states: a value, or the names that begin with a prefix. The answer's value is
// the caller's.
func Answer(s store.Reader, ref Ref, r functions.Read, a *functions.ReadAnswer) error {
	switch r.Kind {
	case functions.ReadState, functions.ReadShared:
		v, _, err := Get(s, ref, r.Name)
		a.Value = bytes.Clone(v)
		return err
	}
	names, err := Keys(s, ref, r.Name, maxKeys)
	if err != nil {
		return err
	}
	a.Value, err = json.Marshal(names)
	return err
}
