package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
)

// check goes through what an invocation wants done and returns the fault that it is if any of it may not be.
func (e *Engine) check(spec *functions.Spec, o *functions.Outcome) *functions.Fault {
	return rules.Check(spec, o, rules.Surroundings{Prefix: e.opt.Prefix, Writable: func(name string) bool {
		d := e.plant.device(name)
		return d != nil && (d.Actuator != nil || (d.Feed != nil && d.Feed.Write != ""))
	}})
}

// actionID is the identity of an action: the same whenever its event runs again in this function.
func actionID(event, fn string, index int) string {
	h := sha256.New()
	for _, s := range []string{event, "\x00", fn, "\x00", strconv.Itoa(index)} {
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// withID adds "_id" to a payload that is a JSON object, and leaves any other as it is.
func withID(payload []byte, id string) []byte {
	trimmed := bytes.TrimSpace(payload)
	if len(trimmed) < 2 || trimmed[0] != '{' || !json.Valid(trimmed) {
		return payload
	}
	rest := bytes.TrimSpace(trimmed[1:])
	out := append(make([]byte, 0, len(trimmed)+48), `{"_id":"`+id+`"`...)
	if rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...)
}
