package recording

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/functions"
)

// place is where a value lives.
type place struct {
	shared bool
	key    string // of a value that is not shared
	name   string
}

// world is what is known of a function's state at one point of a recording. A name that is not in it is unknown; nil is a value that is
// known not to be there.
type world map[place][]byte

// learn takes in what an invocation read, and returns the places that somebody else than the recorded invocations has changed.
func (w world) learn(key string, reads []functions.ReadAnswer) (changed []place) {
	note := func(at place, v []byte) {
		if was, known := w[at]; known && !bytes.Equal(was, v) {
			changed = append(changed, at)
		}
		w[at] = v
	}
	for _, a := range reads {
		if a.Err != "" {
			continue
		}
		switch a.Kind {
		case functions.ReadState, functions.ReadShared:
			note(placeOf(a.Kind == functions.ReadShared, key, a.Name), a.Value)
		case functions.ReadStateKeys, functions.ReadSharedKeys:
			shared := a.Kind == functions.ReadSharedKeys
			names := namesIn(a.Value)
			for at, v := range w {
				if at.shared == shared && (shared || at.key == key) && strings.HasPrefix(at.name, a.Name) && v != nil && !slices.Contains(names, at.name) {
					note(at, nil)
				}
			}
		}
	}
	return changed
}

func placeOf(shared bool, key, name string) place {
	if shared {
		key = ""
	}
	return place{shared, key, name}
}

func namesIn(value []byte) (names []string) {
	_ = json.Unmarshal(value, &names) // what is no list has no names
	return names
}

// apply changes the world as the effects of a committed invocation do. now finds the value that an incr adds to.
func (w world) apply(key string, effects []Effect, now func(place) (value []byte, known bool)) {
	for i := range effects {
		x := &effects[i]
		space, does, ok := strings.Cut(x.Do, ".")
		if !ok || (space != "state" && space != "shared") {
			continue
		}
		at := placeOf(space == "shared", key, x.Name)
		switch does {
		case "set":
			w[at] = x.Bytes()
		case "delete":
			w[at] = nil
		case "incr":
			if v, known := now(at); known {
				if sum, ok := plus(v, x.By); ok {
					w[at] = sum
					continue
				}
			}
			delete(w, at)
		}
	}
}

// plus adds to a number as functions/state does.
func plus(value []byte, by float64) ([]byte, bool) {
	var n float64
	if value != nil && (string(value) == "null" || json.Unmarshal(value, &n) != nil) {
		return nil, false
	}
	sum, err := json.Marshal(n + by)
	return sum, err == nil
}

// present are the names that are known to be there, in one state, from prefix on.
func (w world) present(shared bool, key, prefix string) (names []string) {
	for at, v := range w {
		if at.shared == shared && (shared || at.key == key) && strings.HasPrefix(at.name, prefix) && v != nil {
			names = append(names, at.name)
		}
	}
	slices.Sort(names)
	return names
}
