package store

// Space is the first byte of every key: who owns it. This is the one table of them; a space has one owner, and only
// the owner reads and writes its keys.
type Space byte

const (
	Meta        Space = 'm' // store: schema version, epoch; engine: clock, sequence
	Inbox       Space = 'i' // engine: events that wait
	Journal     Space = 'j' // engine: actions to carry out
	DeadLetters Space = 'd' // engine
	Timers      Space = 't' // engine
	Marks       Space = 'k' // engine: deliveries that may be repeated
	Catalog     Space = 'c' // functions/catalog: revisions, origins
	State       Space = 's' // functions/state
	Stateful    Space = 'a' // functions/state: which functions have state; far from the state itself
	Usage       Space = 'u' // functions/usage: what functions cost, by hours and days
	Seen        Space = 'e' // engine: the last payload of a topic for a function
	Dedupe      Space = 'p' // engine: values that dedupe has seen
	Streams     Space = 'o' // sync/outbox
	Retained    Space = 'r' // drivers/broker
	Sessions    Space = 'n' // drivers/broker
)

// String returns what people call a space.
func (s Space) String() string {
	names := map[Space]string{
		Meta: "meta", Inbox: "inbox", Journal: "journal", DeadLetters: "dead letters", Timers: "timers", Marks: "marks", Catalog: "functions", State: "state", Stateful: "functions with state",
		Usage: "usage", Seen: "last payloads", Dedupe: "dedupe", Streams: "streams", Retained: "retained messages", Sessions: "sessions",
	}
	if name, ok := names[s]; ok {
		return name
	}
	return "unknown"
}
