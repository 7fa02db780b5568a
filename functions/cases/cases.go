// Package cases is what the tests of a function say: the files tests/*.yaml of a bundle.
//
//	# overheat/tests/warm.yaml
//	- name: a warm room switches the fan on, once
//	  given: {env: {on: 30, off: 28}}
//	  steps:
//	    - mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 31}}
//	      expect: []
//	    - after: 2m
//	      expect: [{device: fan, write: true}, {publish: alerts/overheat, data: {hot: true}}]
//
// A case is what there was (given) and steps: something happens, and then this is to be so. Parse reads a file against the function's
// spec, so that a message that no trigger takes, or a setting that is none, is an error with its line before anything runs. Check
// compares what a step caused with what it says. The package stage runs the steps.
//
// # What must be exact
//
// What is left out does not matter. The lists expect and log are exact in number and order. Within an entry only what is written
// is compared: of a JSON object the fields that are written, to any depth; lists in full; numbers with a fraction to nine digits. A field that
// is to be null may be absent.
package cases

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Bounds of what a file may ask for.
const (
	MaxCases = 200  // of one file
	MaxSteps = 1000 // of one case
	maxAfter = 10 * 366 * 24 * time.Hour
)

// Case is one test of a function.
type Case struct {
	Name  string
	File  string // as errors and reports call it
	Line  int
	Given Given
	Steps []Step
}

// Given is what there is before the first step. Values are JSON.
type Given struct {
	Env      []byte // the function's env, with the case's settings over it
	Key      string // whose state and timers these are
	State    []Value
	Shared   []Value
	Timers   []Timer
	Devices  []Value // the last readings, JSON objects
	Secrets  []functions.Secret
	Now      time.Time
	ClockOff bool   // the clock is not synchronised
	Seed     uint64 // of the first event; the next one has the next
	Gateway  string // its id
	Attempt  int    // of the first event: how often it was tried before
}

// Value is a name with its JSON.
type Value struct {
	Name string
	JSON []byte
}

// Timer is one that is set, and in how long it is due.
type Timer struct {
	Name string
	In   time.Duration
}

// Kind is what a step makes happen.
type Kind string

// The kinds of causes. A step may have none and only let time pass.
const (
	MQTT     Kind = "mqtt"
	Device   Kind = "device"
	Every    Kind = "every"
	Timed    Kind = "timer"
	Function Kind = "function"
	Changed  Kind = "changed"
	Gateway  Kind = "gateway"
	Reply    Kind = "reply"
	Invoke   Kind = "invoke"
)

// Cause is what happens in a step.
type Cause struct {
	Kind     Kind
	Name     string // topic, device, function, FUNCTION/NAME, timer, start…; of every the period
	Data     []byte // the payload as it comes
	Retained bool
	Key      *string           // timer, reply, changed, invoke: of which key
	Params   map[string]string // invoke
	ID       string            // of the event; empty: made up
	Time     time.Time         // of the event; zero: when it happens
}

// Step is one thing that happens, and what is to be so then.
type Step struct {
	Line   int
	Text   string        // what happens, for people: "mqtt zigbee2mqtt/cellar", "after 2m"
	After  time.Duration // passes first
	Cause  *Cause        // nil: only time passes
	Expect Expect
}

// Expect is what a step must have caused. A part that is absent from the file does not matter.
type Expect struct {
	effects                 []want
	result, fault, retry    yamlfile.Node
	state, shared, timers   yamlfile.Node
	log, skipped, effectsAt yamlfile.Node
}
