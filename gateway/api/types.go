// Package api is the control API: one set of requests behind the CLI, the remote commands and the console. It is HTTP
// with JSON over a Unix socket that only the owner and the group of the gateway may open.
//
// Types and the Gateway interface say what can be asked; Server answers over HTTP, Client asks. Whoever can open the
// socket may do everything.
package api

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// Status is the gateway at a glance.
type Status struct {
	Gateway  string        `json:"gateway"`
	Version  string        `json:"version"`
	PID      int           `json:"pid"`
	Uptime   time.Duration `json:"uptime_ns"`
	Ready    bool          `json:"ready"` // sources subscribed and functions loaded
	Problems []string      `json:"problems,omitempty"`

	Broker    BrokerStatus     `json:"broker"`
	Events    EventCounts      `json:"events"`
	Functions map[string]int   `json:"functions"` // how many in each state
	Store     StoreStatus      `json:"store"`
	Workers   WorkerStatus     `json:"workers"`
	Sources   []SourceStatus   `json:"sources,omitempty"`
	Losses    map[string]int64 `json:"losses,omitempty"` // accepted events that left without an outcome, by cause
	Gaps      []Gap            `json:"gaps,omitempty"`   // when that was, the latest first, for what a function's share of the inbox had no room for
	Refused   map[string]int64 `json:"refused,omitempty"`
	Uplinks   []UplinkStatus   `json:"uplinks,omitempty"`
}

// Gap is events of one function that left without an outcome, shortly after one another.
type Gap struct {
	Function string    `json:"function"`
	Cause    string    `json:"cause"` // as in Losses
	Events   int64     `json:"events"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
}

// BrokerStatus is the local broker.
type BrokerStatus struct {
	Embedded  bool     `json:"embedded"`
	URL       string   `json:"url,omitempty"`
	Listen    []string `json:"listen,omitempty"`
	Connected bool     `json:"connected"`
	Clients   int      `json:"clients,omitempty"`
	LastError string   `json:"last_error,omitempty"`
	// LostSessions is how often an external broker had forgotten a session of this gateway, with the messages that it held.
	LostSessions int64 `json:"lost_sessions,omitempty"`
}

// EventCounts count since the gateway's start.
type EventCounts struct {
	Received   int64 `json:"received"`
	Accepted   int64 `json:"accepted"`
	Committed  int64 `json:"committed"` // outcomes: one per event and function
	Duplicates int64 `json:"duplicates"`
	Faults     int64 `json:"faults"`
	Dead       int64 `json:"dead"`     // dead letters there are now
	Waiting    int64 `json:"waiting"`  // to run; some of them are in the inbox
	Inbox      int64 `json:"inbox"`    // in the store: they wait, run, or are to run again
	Actions    int64 `json:"actions"`  // journalled, not yet done
	Repeated   int64 `json:"repeated"` // actions that were sent again, since they may not have arrived
}

// StoreStatus is the store.
type StoreStatus struct {
	Dir        string `json:"dir"`
	Durability string `json:"durability"`
	Profile    string `json:"profile"`
	Bytes      int64  `json:"bytes"` // on disk
	Free       int64  `json:"free"`  // of the file system
	Groups     int64  `json:"groups"`
	Syncs      int64  `json:"syncs"`
}

// WorkerStatus is the pool of worker processes.
type WorkerStatus struct {
	Running int   `json:"running"`
	Busy    int   `json:"busy"`
	Max     int   `json:"max"`
	Started int64 `json:"started"`
	Killed  int64 `json:"killed"`

	StartError string  `json:"start_error,omitempty"` // why workers do not start
	Layers     []Layer `json:"layers,omitempty"`      // of their confinement
}

// Layer is one layer of the workers' confinement.
type Layer struct {
	Name  string `json:"name"`
	State string `json:"state"`         // LayerOn, LayerOff, LayerUnavailable
	Why   string `json:"why,omitempty"` // it is not on, or only in part
}

// The states of a layer.
const (
	LayerOn          = "on"
	LayerOff         = "off"         // it could be on and is not
	LayerUnavailable = "unavailable" // this machine does not have it
)

// SourceStatus is one source.
type SourceStatus struct {
	Name      string `json:"name"`
	Connected bool   `json:"connected"`
	Events    int64  `json:"events"`
	Faults    int64  `json:"faults"`
	LastError string `json:"last_error,omitempty"`
}

// Function is one deployed function.
type Function struct {
	Name        string           `json:"name"`
	Description string           `json:"description,omitempty"`
	State       string           `json:"state"`            // active, paused, blocked
	Reason      string           `json:"reason,omitempty"` // why it is paused or blocked
	Origin      string           `json:"origin"`           // dir, applied, pushed
	Revision    string           `json:"revision"`         // the first 12 digits of the digest
	Since       time.Time        `json:"since"`
	Triggers    []string         `json:"triggers"`
	Key         string           `json:"key,omitempty"`
	Runs        int64            `json:"runs"` // since the gateway's start
	OK          int64            `json:"ok"`
	Faults      map[string]int64 `json:"faults,omitempty"`
	Waiting     int64            `json:"waiting"`
	Dead        int64            `json:"dead"`
	P50         time.Duration    `json:"p50_ns"` // wall time of an invocation
	P99         time.Duration    `json:"p99_ns"`
	CPU         time.Duration    `json:"cpu_ns"` // of an invocation, mean
	LastFault   *functions.Fault `json:"last_fault,omitempty"`
	StateBytes  int64            `json:"state_bytes"`

	// Only in Function(name):
	Files       map[string]string `json:"files,omitempty"`
	Permissions []string          `json:"permissions,omitempty"`
	Env         map[string]any    `json:"env,omitempty"`
}

// ApplyRequest carries a bundle.
type ApplyRequest struct {
	Name  string            `json:"name,omitempty"` // default: function.yaml's
	Files map[string][]byte `json:"files"`
	Take  bool              `json:"take,omitempty"`    // over from another origin
	Dry   bool              `json:"dry_run,omitempty"` // check everything, change nothing
}

// ApplyResult says what apply did.
type ApplyResult struct {
	Name     string   `json:"name"`
	Revision string   `json:"revision"`
	Previous string   `json:"previous,omitempty"`
	Action   string   `json:"action"` // created, changed, unchanged
	State    string   `json:"state"`
	Reason   string   `json:"reason,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// InvokeRequest runs a function once on an event made by hand, like any other event.
type InvokeRequest struct {
	Data   json.RawMessage   `json:"data,omitempty"`
	Topic  string            `json:"topic,omitempty"`
	Params map[string]string `json:"params,omitempty"`
	Key    *string           `json:"key,omitempty"`
	Dry    bool              `json:"dry_run,omitempty"` // only say what it would do
}

// Invoked is how that went. With Dry set, it is how it would go: nothing was done.
type Invoked struct {
	Dry     bool             `json:"dry_run,omitempty"`
	EventID string           `json:"event_id"`
	Outcome string           `json:"outcome"` // committed, retry, dead
	Result  json.RawMessage  `json:"result,omitempty"`
	Effects []string         `json:"effects,omitempty"`
	Fault   *functions.Fault `json:"fault,omitempty"`
	Logs    []LogLine        `json:"logs,omitempty"`
	Wall    time.Duration    `json:"wall_ns"`
	CPU     time.Duration    `json:"cpu_ns"`
}

// LogLine is one line of a function's log; faults stand in it too.
type LogLine struct {
	Time     time.Time        `json:"time"`
	Function string           `json:"function"`
	Revision string           `json:"revision"`
	Level    string           `json:"level"`
	Text     string           `json:"text"`
	EventID  string           `json:"event_id,omitempty"`
	Fault    *functions.Fault `json:"fault,omitempty"`
}

// Life is one event and what it caused, as far as that has happened. The same ID comes again in a followed list when more has.
type Life struct {
	ID       string        `json:"id"`
	Seq      uint64        `json:"seq"`
	Source   string        `json:"source"`
	Type     string        `json:"type"`
	Subject  string        `json:"subject"`
	Time     time.Time     `json:"time"`
	TimeOK   bool          `json:"time_ok"`
	Size     int           `json:"size"`
	Preview  string        `json:"preview"` // of the payload: at most 120 bytes, printable
	Accepted bool          `json:"accepted"`
	Took     time.Duration `json:"took_ns,omitempty"`  // until it was accepted
	Refused  string        `json:"refused,omitempty"`  // why the gateway would not have it
	Replayed string        `json:"replayed,omitempty"` // the dead letter that it was; it ran outside the order of its key
	Outcomes []LifeOutcome `json:"outcomes"`
}

// LifeOutcome is what one function did with an event, or why it did not run.
type LifeOutcome struct {
	Function string           `json:"function"`
	Revision string           `json:"revision,omitempty"`
	What     string           `json:"what"`          // running, committed, retry, dead, skipped, duplicate, waiting
	Why      string           `json:"why,omitempty"` // skipped: 'no field "temperature"'
	Attempt  int              `json:"attempt,omitempty"`
	Wall     time.Duration    `json:"wall_ns,omitempty"`
	CPU      time.Duration    `json:"cpu_ns,omitempty"`
	Effects  []string         `json:"effects,omitempty"` // "publish alerts/overheat", "device fan = true"
	Result   string           `json:"result,omitempty"`
	Fault    *functions.Fault `json:"fault,omitempty"`

	At       time.Duration `json:"at_ns,omitempty"`      // when the last attempt ended, since the event came in
	Durable  time.Duration `json:"durable_ns,omitempty"` // when the outcome was committed and synced; 0: not yet, or not known
	Letter   string        `json:"letter,omitempty"`     // the dead letter that it became
	Attempts []LifeAttempt `json:"attempts,omitempty"`   // those that failed, the last ones
	Actions  []LifeAction  `json:"actions,omitempty"`
	Records  []LifeRecord  `json:"records,omitempty"`
}

// LifeAttempt is an attempt that failed.
type LifeAttempt struct {
	Number   int           `json:"number"`
	Revision string        `json:"revision"`
	At       time.Duration `json:"at_ns"`
	Wall     time.Duration `json:"wall_ns"`
	What     string        `json:"what"` // retry, dead
	Fault    string        `json:"fault"`
}

// LifeAction is a publish, a device write or an HTTP call of a committed outcome.
type LifeAction struct {
	ID     string        `json:"id"` // that its receiver can tell repeats by
	Action string        `json:"action"`
	What   string        `json:"what"`          // waiting, done, dropped
	Why    string        `json:"why,omitempty"` // of the last time that it could not be carried out
	At     time.Duration `json:"at_ns"`
}

// LifeRecord is a record that a committed outcome appended to a stream.
type LifeRecord struct {
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
	What     string `json:"what,omitempty"` // waiting, acknowledged, dropped; only in Event(id)
	Why      string `json:"why,omitempty"`
}

// EventCase is an event as a test case: what a function read and did when it ran on it.
type EventCase struct {
	Function string `json:"function"`
	Revision string `json:"revision"` // that ran
	Event    string `json:"event"`
	Text     string `json:"text"` // a file for tests/ of the function
}

// DeadLetter is an event whose function failed for good.
type DeadLetter struct {
	ID       string           `json:"id"`
	Function string           `json:"function"`
	Revision string           `json:"revision"`
	Key      string           `json:"key,omitempty"`
	Attempts int              `json:"attempts"`
	Since    time.Time        `json:"since"`
	Reason   string           `json:"reason"` // the fault's kind, or "removed", "asked"
	Fault    *functions.Fault `json:"fault,omitempty"`
	EventID  string           `json:"event_id"`
	Type     string           `json:"type"`
	Subject  string           `json:"subject"`
	Time     time.Time        `json:"time"`
	Size     int              `json:"size"`
	Data     []byte           `json:"data,omitempty"` // only in DeadLetter(id)
}

// DeadQuery selects dead letters; empty fields select all.
type DeadQuery struct {
	Function string `json:"function,omitempty"`
	Revision string `json:"revision,omitempty"`
	Limit    int    `json:"limit,omitempty"`
}

// StateEntry is one value of a function's state.
type StateEntry struct {
	Function string          `json:"function"`
	Key      string          `json:"key"`
	Shared   bool            `json:"shared,omitempty"`
	Name     string          `json:"name"`
	Value    json.RawMessage `json:"value"`
}

// StateRef names values: all of a function's, those of one key, or one.
type StateRef struct {
	Function string
	Name     string // empty: all names
	Key      *string
	Shared   bool
}

// Device is one configured device.
type Device struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind"`
	Connected bool           `json:"connected"`
	Reads     bool           `json:"reads"`
	Writes    bool           `json:"writes"`
	Fields    map[string]any `json:"fields,omitempty"` // last reading
	At        time.Time      `json:"at,omitzero"`
	Written   any            `json:"written,omitempty"` // last value written
	LastError string         `json:"last_error,omitempty"`
}

// UplinkStatus is one connection to the cloud.
type UplinkStatus struct {
	Name      string        `json:"name"`
	URL       string        `json:"url"`
	Connected bool          `json:"connected"`
	Paused    bool          `json:"paused,omitempty"`
	LastError string        `json:"last_error,omitempty"` // why it is not connected, or will not be for long
	Since     time.Time     `json:"since"`                // of being connected or not
	Waiting   int64         `json:"waiting"`
	Sent      int64         `json:"sent"`
	Resent    int64         `json:"resent"`
	Rate      float64       `json:"rate"`     // records/s, of the last seconds
	Drain     time.Duration `json:"drain_ns"` // estimate; negative: not draining
}

// Stream is one stream.
type Stream struct {
	Name        string        `json:"name"`
	Uplink      string        `json:"uplink"`
	Priority    string        `json:"priority"`
	Epoch       string        `json:"epoch"`
	First       uint64        `json:"first"` // oldest sequence kept
	Next        uint64        `json:"next"`  // sequence of the next record
	Acked       uint64        `json:"acked"` // highest acknowledged
	Waiting     int64         `json:"waiting"`
	Bytes       int64         `json:"bytes"`
	Oldest      time.Duration `json:"oldest_ns"`
	Dropped     int64         `json:"dropped"`     // by retention
	Quarantined int64         `json:"quarantined"` // refused by the far side
}

// EventQuery selects lives.
type EventQuery struct {
	Follow   bool
	Topic    string // filter on the subject
	Function string
	Limit    int // of what is in memory already; 0: 100
}

// RecordQuery says what is recorded, and for how long. Zero: as the gateway does it.
type RecordQuery struct {
	Function    string
	Key         *string
	For         time.Duration
	Bytes       int64
	Invocations int
}

// LogQuery selects log lines.
type LogQuery struct {
	Function string
	Follow   bool
	Limit    int
}

// ReloadResult says what a reload changed.
type ReloadResult struct {
	Changed  []string `json:"changed,omitempty"`
	Restart  []string `json:"needs_restart,omitempty"` // keys that changed and need a restart
	Problems []string `json:"problems,omitempty"`      // folders of functions that were not taken over, and why
}

// Gateway is what the server asks. Errors are *Error where the client should be told a code; any other is an internal error.
type Gateway interface {
	Status(ctx context.Context) (*Status, error)
	Reload(ctx context.Context) (*ReloadResult, error)
	Config(ctx context.Context) (json.RawMessage, error) // the configuration in force, secrets left out
	Backup(ctx context.Context, w io.Writer) error       // writes a file as package backup has it; after an error w has part of one

	Functions(ctx context.Context) ([]Function, error)
	Function(ctx context.Context, name string) (*Function, error)
	Apply(ctx context.Context, r *ApplyRequest) (*ApplyResult, error)
	Remove(ctx context.Context, name string, purge bool) error
	Pause(ctx context.Context, name, reason string) error
	Resume(ctx context.Context, name string) error
	Invoke(ctx context.Context, name string, r *InvokeRequest) (*Invoked, error)
	Logs(ctx context.Context, q LogQuery, emit func(LogLine) error) error

	Events(ctx context.Context, q EventQuery, emit func(Life) error) error
	Event(ctx context.Context, id string) (*Life, error)
	EventCase(ctx context.Context, id, function string) (*EventCase, error) // function: empty if it ran in one only

	// Record passes on the lines of a recording (see functions/recording) of what happens from now on.
	Record(ctx context.Context, q RecordQuery, emit func(json.RawMessage) error) error

	DeadLetters(ctx context.Context, q DeadQuery) ([]DeadLetter, error)
	DeadLetter(ctx context.Context, id string) (*DeadLetter, error)
	Replay(ctx context.Context, id string, data []byte) error                // data nil: as it was
	TryReplay(ctx context.Context, id string, data []byte) (*Invoked, error) // what a replay would do; nothing is done
	Drop(ctx context.Context, id string) error

	State(ctx context.Context, ref StateRef) ([]StateEntry, error)
	SetState(ctx context.Context, ref StateRef, value json.RawMessage) error
	DeleteState(ctx context.Context, ref StateRef) (int, error)

	Devices(ctx context.Context) ([]Device, error)
	Device(ctx context.Context, name string) (*Device, error) // reads it
	WriteDevice(ctx context.Context, name string, value any) error

	Usage(ctx context.Context, q UsageQuery) ([]Usage, error)
	Advise(ctx context.Context, function string) ([]Advice, error) // "": on all functions
	Top(ctx context.Context) (*Top, error)

	Uplinks(ctx context.Context) ([]UplinkStatus, error)
	Streams(ctx context.Context) ([]Stream, error)
}

// Error is an error for the client: what was wrong, and what to do about it.
type Error struct {
	Code    string `json:"code"` // not-found, bad-request, conflict, unavailable, internal
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error is the message, with the hint on a line of its own.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\nhint: " + e.Hint
}
