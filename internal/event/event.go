// Package event defines the event, the one thing that moves through the gateway.
//
// An event is an immutable fact with the attributes of CloudEvents 1.0 (id, source, type, subject, time, data) and
// what a box without a clock battery must add: a sequence number, the boot it was seen in, the monotonic time since
// that boot, and whether the wall clock could be trusted at that moment. Order comes from the sequence, never from the
// wall clock.
package event

import "time"

// The types of events, as functions see them in event.type.
const (
	Message = "message" // an MQTT message
	Reading = "reading" // what a device measured or did
	Tick    = "tick"    // a schedule
	State   = "state"   // a state value that changed
	Result  = "result"  // what another function returned
	Timer   = "timer"   // a timer that the function set
	Gateway = "gateway" // the gateway's own life: start, online, offline
	Invoke  = "invoke"  // a person asked for it
	Reply   = "reply"   // the answer to an HTTP call of the function
)

// Event is one immutable fact. Whoever holds an Event may read it from any goroutine; nobody writes to it once it has
// been handed to the engine, its Data included.
type Event struct {
	ID      string    // unique; what receivers and actions derive their identities from
	Source  string    // who says so: "mqtt", "device/cellar", "function/overheat", "timer/overheat"
	Type    string    // one of the constants above
	Subject string    // what it is about: the topic, the device, the state's name, the timer's name
	Time    time.Time // wall clock, UTC, to the millisecond
	TimeOK  bool      // whether that clock was synchronised when the event was made

	Seq  uint64        // rises by at least one from event to event, over restarts too
	Boot uint32        // which start of the machine; counts up
	Mono time.Duration // since that start

	Data     []byte // the payload as it came; JSON where the source makes it itself
	Topic    string // MQTT topic; empty for what is not a message
	Retained bool   // the broker had kept it
	Key      string // the key for sources that fix it themselves (timers, replays); used only if HasKey
	HasKey   bool
	Chain    uint16 // how many functions led to this event, one after another
}
