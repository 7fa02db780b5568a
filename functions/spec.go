// Package functions defines what a function is: its Spec (function.yaml), the Invocation that is sent to a worker, and the Outcome that
// comes back: effects, a result, or a Fault. It has the types that the packages below it and the gateway share, and no machinery.
package functions

import (
	"time"
)

// Spec is a function.yaml after parsing: every default filled in, everything checked that can be checked without a gateway.
type Spec struct {
	Name        string
	Description string
	Requires    string // least version of Perigee, "" for any
	Triggers    []Trigger
	Key         Key
	Permissions Permissions
	Env         map[string]any // bool, float64, string
	Limits      Limits
	Retry       Retry
	Dedupe      *Dedupe
	Inbox       Inbox
	Durability  string // "", "power", "crash", "none"; "" is the gateway's setting
}

// Trigger is one thing that makes a function run; exactly one of its parts is set.
type Trigger struct {
	MQTT     *MQTTTrigger
	Device   string        // any event of this device
	Every    time.Duration // a period
	State    string        // "FUNCTION/NAME": a state value of another function, or of this one
	Function string        // that function's result
	Gateway  []string      // of "start", "online", "offline"
	Line     int           // where it stands in function.yaml
}

// MQTTTrigger selects messages.
type MQTTTrigger struct {
	Topic    string   // pattern: {name} is one level and a param; + and # as in MQTT
	QoS      byte     // to subscribe with; default 1
	Exclude  []string // filters whose messages are left out
	Has      []string // skipped unless the payload is a JSON object with all of these fields
	Retained string   // "changed" (default), "always", "never"
}

// KeyKind says where a function's key comes from.
type KeyKind int

const (
	KeyFunction KeyKind = iota // absent: the whole function is one key, ""
	KeyNone                    // "none": any order, in parallel, no state but shared
	KeyTopic                   // "{topic}"
	KeyParam                   // "{name}", also several, with text between: "{site}/{room}"
	KeyData                    // "data.some.path"
)

// Key is how an event's key is found.
type Key struct {
	Kind KeyKind
	Text string   // as written
	Path []string // KeyData: the path without "data"
}

// Permissions is all that a function may do beyond computing. Lists of publish are MQTT filters, lists of names are exact.
type Permissions struct {
	ReadDevices  []string
	WriteDevices []string
	Publish      []string
	Streams      []string
	HTTP         []HTTPRule
	Secrets      []string // a function that has any gets workers of its own
}

// Limits bound one invocation, and the function as a whole. All have defaults; a gateway may lower them.
type Limits struct {
	Timeout     time.Duration // wall time of one invocation; 1 s
	Memory      int64         // bytes that one invocation may allocate live; 16 MiB
	Concurrency int           // invocations at once, 0: as many as the gateway allows
	Effects     int           // effects of one invocation; 64
	EffectBytes int           // of all effects and the result of one invocation; 64 KiB
	Result      int           // bytes of the result of one invocation, as JSON; as EffectBytes
	Reads       int           // different values that one invocation reads; 256
	State       int64         // bytes of state of the whole function; 4 MiB
	Timers      int           // that are set at once, of the whole function; 10,000
	LogBytes    int           // log text of one invocation, with one byte for the end of each line; 8 KiB
	Rate        Rate          // events a second; what comes faster waits; 0, the default: any number
	StreamBytes int64         // bytes appended to streams in a day by the whole function; 0, the default: as the streams hold
}

// Retry is what happens after a fault that can pass by itself.
type Retry struct {
	Attempts int           // in all; 3
	First    time.Duration // before the second attempt; 200 ms
	Max      time.Duration // the longest wait; 30 s
	Overtake bool          // later events of the key need not wait
}

// Dedupe drops events whose value at By was seen within Window.
type Dedupe struct {
	By     []string // path below data
	Window time.Duration
}

// What happens when a function's share of the inbox is full: values of Inbox.Full.
const (
	DropOldest = "drop-oldest" // the event that has waited longest is lost
	DropNewest = "drop-newest" // the event that came last is lost
	Block      = "block"       // the sender waits; only on the embedded broker
)

// Inbox bounds what waits for a function in the gateway's inbox.
type Inbox struct {
	Bytes int64  // 16 MiB
	Full  string // one of the above; "": Block on the embedded broker, DropOldest on another
}
