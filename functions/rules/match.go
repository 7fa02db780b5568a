package rules

import (
	"fmt"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/jsonscan"
	"github.com/perigee-iot/perigee/internal/topic"
)

// MaxKey bounds the key of an event, in bytes.
const MaxKey = 256

// MaxChain is how many functions may follow from one another, unless a gateway says otherwise.
const MaxChain = 16

// Skips says why a function does not run on a message whose topic a trigger selects, "" if it does. known says whether the payload is
// the last one that the function has committed for the topic.
func Skips(m *functions.MQTTTrigger, ev *event.Event, known func() bool) string {
	for _, x := range m.Exclude {
		if topic.Match(x, ev.Topic) {
			return "excluded by " + x
		}
	}
	if ev.Retained {
		switch {
		case m.Retained == "never":
			return "retained, and the trigger says retained: never"
		case m.Retained != "always" && known():
			return "retained, and the same as the last one"
		}
	}
	if len(m.Has) == 0 {
		return ""
	}
	paths := make([][]string, len(m.Has))
	for i, h := range m.Has {
		paths[i] = []string{h}
	}
	vals, err := jsonscan.Fields(ev.Data, paths)
	if err != nil {
		return "has: the payload is not a JSON object"
	}
	for i, v := range vals {
		if v.Kind == jsonscan.Absent {
			return fmt.Sprintf("has: the payload has no field %q", m.Has[i])
		}
	}
	return ""
}

// KeyOf finds the key of an event for a function.
func KeyOf(spec *functions.Spec, ev *event.Event, params map[string]string) (string, error) {
	if ev.HasKey {
		return ev.Key, nil
	}
	key := spec.Key.Expand(ev.Topic, params)
	if spec.Key.Kind == functions.KeyData {
		if vals, err := jsonscan.Fields(ev.Data, [][]string{spec.Key.Path}); err == nil {
			key, _ = vals[0].Key() // events without the value share the key ""
		}
	}
	if len(key) > MaxKey {
		return "", fmt.Errorf("its key has %d bytes, more than the %d that are allowed", len(key), MaxKey)
	}
	return key, nil
}

// DedupeValue finds the value that an event is told from others by, "" if it has none: such events always run.
func DedupeValue(spec *functions.Spec, ev *event.Event) string {
	if spec.Dedupe == nil {
		return ""
	}
	vals, err := jsonscan.Fields(ev.Data, [][]string{spec.Dedupe.By})
	if err != nil {
		return ""
	}
	v, ok := vals[0].Key()
	if !ok || len(v) > MaxKey {
		return ""
	}
	return v
}
