// Package recording is the form of a recording: real invocations with all that they depended on and what came of them, so that
// another revision can be run on the same events far away from the gateway.
//
// A recording is text, one JSON object a line (NDJSON), so that jq, grep and an editor can read it. Each line has one field, which
// says what the line is:
//
//	{"begin": {…}}       the first line: format, version, gateway, when, what was asked for
//	{"function": {…}}    a revision with its settings; stands before its first invocation, and again when the settings have changed
//	{"invocation": {…}}  one attempt of one revision on one event: event, params, key, time, seed, what it read, and its outcome
//	{"left_out": {…}}    so many invocations stood here that are not in the file, and why
//	{"end": {…}}         the last line: how many there are, and why the recording ended; missing if it was cut off
//
// Invocations stand in the order in which their outcomes were committed. A payload or value is "data" if it is JSON, else "text", else
// "base64"; in each form its bytes are exactly those that were. Secrets are not in a recording (see hide.go): "***" stands in
// their place.
//
// Of makes lines of what happened, Reader reads them, Player runs a bundle on them, and Compare says what is different.
package recording

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

const (
	// Format is in the first line of every recording.
	Format = "perigee-recording"
	// Version is that of the format. Fields may come to it; what changes its meaning makes a new version.
	Version = 1
	// MaxLine bounds a line, in bytes. What would be longer is left out.
	MaxLine = 1 << 20
)

// Why invocations are left out.
const (
	TooLarge = "too large" // longer than MaxLine, or with more state than a record may have
	TooFast  = "too fast"  // whoever records did not keep up
)

// Line is one line. Exactly one field is set.
type Line struct {
	Begin      *Begin      `json:"begin,omitempty"`
	Function   *Function   `json:"function,omitempty"`
	Invocation *Invocation `json:"invocation,omitempty"`
	LeftOut    *LeftOut    `json:"left_out,omitempty"`
	End        *End        `json:"end,omitempty"`
}

// Begin is the first line.
type Begin struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Gateway  string    `json:"gateway"`
	Perigee  string    `json:"perigee,omitempty"` // the gateway's version
	At       time.Time `json:"at"`                // by the gateway's wall clock
	Function string    `json:"function,omitempty"`
	Key      *string   `json:"key,omitempty"` // only invocations of this key
}

// Function is a revision that invocations name.
type Function struct {
	Name     string         `json:"name"`
	Revision string         `json:"revision"`           // the digest of its bundle
	Settings map[string]any `json:"settings,omitempty"` // the values of env that are not those of its function.yaml
}

// Invocation is one attempt of one revision on one event.
type Invocation struct {
	Function string            `json:"function"`
	Revision string            `json:"revision"`
	Event    Event             `json:"event"`
	Params   map[string]string `json:"params,omitempty"`
	Key      string            `json:"key"`
	Attempt  int               `json:"attempt"`
	Now      time.Time         `json:"now"`
	NowOK    bool              `json:"now_ok"`
	Seed     string            `json:"seed"` // of math.random, hexadecimal
	Reads    []Value           `json:"reads,omitempty"`
	Outcome  Outcome           `json:"outcome"`
	Wall     time.Duration     `json:"wall_ns,omitempty"`
	CPU      time.Duration     `json:"cpu_ns,omitempty"`
}

// Payload is bytes in the form that is best to read. No field set: there is nothing, as of a state value that is not there.
type Payload struct {
	Data   json.RawMessage `json:"data,omitempty"`
	Text   *string         `json:"text,omitempty"`
	Base64 []byte          `json:"base64,omitempty"`
}

// Event is what happened.
type Event struct {
	ID       string    `json:"id"`
	Source   string    `json:"source"`
	Type     string    `json:"type"`
	Subject  string    `json:"subject,omitempty"`
	Time     time.Time `json:"time"`
	TimeOK   bool      `json:"time_ok"`
	Seq      uint64    `json:"seq"`
	Topic    string    `json:"topic,omitempty"`
	Retained bool      `json:"retained,omitempty"`
	Key      *string   `json:"key,omitempty"` // if its source fixed it
	Chain    uint16    `json:"chain,omitempty"`
	Payload
}

// Value is one answer to a question of the function, or one that was sent ahead.
type Value struct {
	Kind    string `json:"kind"` // state, state-keys, shared, shared-keys, device
	Name    string `json:"name"` // the prefix for keys
	Ignored bool   `json:"ignored,omitempty"`
	Err     string `json:"error,omitempty"`
	Payload
}

// Outcome is what came of an invocation.
type Outcome struct {
	What    string           `json:"what"` // committed, retry, dead
	Effects []Effect         `json:"effects,omitempty"`
	Result  json.RawMessage  `json:"result,omitempty"`
	Fault   *functions.Fault `json:"fault,omitempty"`
	Retry   *string          `json:"retry,omitempty"` // why it asked to be run again
	Logs    []Log            `json:"logs,omitempty"`
}

// Log is one line that a function logged.
type Log struct {
	Level string `json:"level"`
	Text  string `json:"text"`
}

// Effect is one thing that a function wanted done.
type Effect struct {
	Do       string        `json:"do"` // publish, device, stream, http, state.set, state.delete, state.incr, shared.…, timer.set, timer.cancel
	Name     string        `json:"name"`
	By       float64       `json:"by,omitempty"`
	QoS      byte          `json:"qos,omitempty"`
	Retain   bool          `json:"retain,omitempty"`
	WithID   bool          `json:"with_id,omitempty"`
	For      time.Duration `json:"for_ns,omitempty"`
	NotAfter time.Duration `json:"not_after_ns,omitempty"`
	Call     *Call         `json:"call,omitempty"` // http; the payload is its body
	Payload
}

// Call is what only HTTP calls have. The values of headers are not recorded: they are where credentials are.
type Call struct {
	Method  string        `json:"method"`
	Headers []string      `json:"headers,omitempty"` // their names
	Reply   string        `json:"reply,omitempty"`
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// LeftOut counts invocations that are not in the file, by reason.
type LeftOut struct {
	Invocations map[string]int `json:"invocations"`
}

// Why a recording ended.
const (
	EndTime    = "time"    // it was as long as it was to be
	EndSize    = "size"    // it was as large as it may be
	EndCount   = "count"   // it had as many invocations as were asked for
	EndStopped = "stopped" // somebody interrupted it
	EndGateway = "gateway" // the gateway stopped, or the connection to it broke
)

// End is the last line.
type End struct {
	Why         string         `json:"why"`
	At          time.Time      `json:"at"`
	Invocations int            `json:"invocations"`
	LeftOut     map[string]int `json:"left_out,omitempty"`
}

// readKinds and effectKinds are the words of the format.
func readKinds() map[functions.ReadKind]string {
	return map[functions.ReadKind]string{functions.ReadState: "state", functions.ReadStateKeys: "state-keys", functions.ReadShared: "shared",
		functions.ReadSharedKeys: "shared-keys", functions.ReadDevice: "device"}
}

func effectKinds() map[functions.EffectKind]string {
	return map[functions.EffectKind]string{
		functions.SetState: "state.set", functions.DeleteState: "state.delete", functions.IncrState: "state.incr",
		functions.SetShared: "shared.set", functions.DeleteShared: "shared.delete", functions.IncrShared: "shared.incr",
		functions.SetTimer: "timer.set", functions.CancelTimer: "timer.cancel",
		functions.Publish: "publish", functions.WriteDevice: "device", functions.Append: "stream", functions.CallHTTP: "http",
	}
}

// kindOf finds the kind that a word of the format stands for.
func kindOf[K comparable](words map[K]string, word string) (kind K, err error) {
	for k, w := range words {
		if w == word {
			return k, nil
		}
	}
	return kind, fmt.Errorf("%.40q is no kind that this version knows", word)
}
