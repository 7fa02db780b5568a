package functions

import (
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/internal/event"
)

// Invocation is one attempt to run one revision of a function on one event: all that a worker needs to know.
type Invocation struct {
	ID       uint64 // unique while the gateway runs; results name it
	Function string
	Revision string // digest of the bundle: names the code
	Event    *event.Event
	Params   map[string]string
	Key      string
	NoKey    bool // key: none, so there is no keyed state
	Attempt  int  // from 1
	Now      time.Time
	NowOK    bool   // the clock is synchronised
	Seed     uint64 // of math.random: the same for every attempt of an event
	Gateway  string // its id
	Env      []byte // JSON object: the function's env with this gateway's settings
	Limits   Limits
	Perms    Permissions  // so that a worker can deny at the line that asks; the gateway checks again
	Hints    []ReadAnswer // values sent ahead, since the function read these last time
	Secrets  []Secret     // those of its permissions; never logged, stored or shown
}

// Secret is a value that only its function may know.
type Secret struct{ Name, Value string }

// ReadKind is what a function may ask for while it runs.
type ReadKind byte

const (
	ReadState      ReadKind = 1 // state.get: Name
	ReadStateKeys  ReadKind = 2 // state.keys: Name is the prefix; Value is a JSON array of names
	ReadShared     ReadKind = 3 // shared.get
	ReadSharedKeys ReadKind = 4 // shared.keys
	ReadDevice     ReadKind = 5 // device.read: Name is the device; Value is a JSON object of its fields
)

// Read is one question from a worker.
type Read struct {
	Kind ReadKind
	Name string
}

// ReadAnswer is the gateway's answer. Value is JSON, nil if there is nothing by that name. Err, if not empty, says why
// there is no answer (device not connected): the function gets nil and this text.
type ReadAnswer struct {
	Read
	Value []byte
	Err   string
}

// EffectKind is what an effect does.
type EffectKind byte

const (
	SetState     EffectKind = 1  // Name, Value (JSON)
	DeleteState  EffectKind = 2  // Name
	SetShared    EffectKind = 3  // Name, Value
	DeleteShared EffectKind = 4  // Name
	SetTimer     EffectKind = 5  // Name, For: after how long
	CancelTimer  EffectKind = 6  // Name
	Publish      EffectKind = 7  // Name: topic, Value: payload bytes, QoS, Retain, NotAfter
	WriteDevice  EffectKind = 8  // Name: device, Value: JSON scalar, For: how long (0: until the next write), NotAfter
	Append       EffectKind = 9  // Name: stream, Value: JSON
	IncrState    EffectKind = 10 // Name, By; the value becomes the number it was (0 if absent) plus By
	IncrShared   EffectKind = 11 // the same; it commutes, so that it never conflicts
	CallHTTP     EffectKind = 12 // Name: URL, Value: an encoded HTTPCall, NotAfter
)

// Effect is one thing that an invocation wants done. Which fields count depends on Kind.
type Effect struct {
	Kind     EffectKind
	Name     string
	Value    []byte
	By       float64
	QoS      byte
	Retain   bool
	WithID   bool          // Publish: add "_id" to a JSON object payload
	For      time.Duration // SetTimer, WriteDevice
	NotAfter time.Duration // no use after this long; 0: whenever
}

// LogLine is one line that a function logged.
type LogLine struct {
	Level string // "debug", "info", "warn", "error"
	Text  string
}

// Usage is what an invocation cost.
type Usage struct {
	Wall   time.Duration
	CPU    time.Duration // of the worker's thread, while it ran
	Memory int64         // bytes, highest seen; 0 if it was too short to be sampled
}

// RetryAsk is what retry("why", "30s") asks for.
type RetryAsk struct {
	Why   string
	After time.Duration
}

// Outcome is what became of an invocation.
type Outcome struct {
	ID      uint64
	Fault   *Fault    // nil if it succeeded
	Retry   *RetryAsk // the function asked to see the event again; nothing else of it counts
	Result  []byte    // JSON of what it returned; nil for nil
	Effects []Effect
	Reads   []Read // what it read, for the next invocation's hints and for conflicts
	Logs    []LogLine
	Usage   Usage
	Lost    bool // its worker died of it or had to be killed: said by the gateway, never by a worker
}

// FaultKind is why an invocation failed.
type FaultKind string

const (
	FaultError     FaultKind = "error"      // the script raised an error, or does not compile
	FaultTimeout   FaultKind = "timeout"    // longer than limits.timeout
	FaultMemory    FaultKind = "memory"     // more than limits.memory
	FaultKilled    FaultKind = "killed"     // its worker died
	FaultDenied    FaultKind = "denied"     // it asked for what its permissions do not have
	FaultBadOutput FaultKind = "bad-output" // an effect or result that cannot be carried out or is over a limit
)

// Passes says whether the fault can pass by itself, so that trying again makes sense. The others repeat by design: the
// same event, state and seed give the same fault.
func (k FaultKind) Passes() bool { return k == FaultTimeout || k == FaultKilled }

// Fault is a failed invocation. It is data, kept with dead letters and shown to people.
type Fault struct {
	Kind      FaultKind `json:"kind"`
	Message   string    `json:"message"`             // one line, with the bundle's file and line where there is one
	Traceback []string  `json:"traceback,omitempty"` // "main.lua:12: in function 'average'", innermost first, at most 10
	Hint      string    `json:"hint,omitempty"`      // what to do, if that is known: the missing line of function.yaml
}

// Error makes a Fault an error, in one line.
func (f *Fault) Error() string { return fmt.Sprintf("%s: %s", f.Kind, f.Message) }

// Text is the fault with its traceback and hint, a line each.
func (f *Fault) Text() string {
	var b strings.Builder
	b.WriteString(f.Error())
	for _, l := range f.Traceback {
		b.WriteString("\n  " + l)
	}
	if f.Hint != "" {
		b.WriteString("\n  hint: " + f.Hint)
	}
	return b.String()
}

// Bundle is a function as it was written: its Spec and its files.
type Bundle struct {
	Spec   *Spec
	Files  map[string][]byte // by slash path: function.yaml, main.lua, lib/…, tests/…
	Digest string            // hex SHA-256 over the sorted paths and contents: the revision's identity
}
