// Package record is what travels to the cloud: records, and the gaps that say which records are missing. Gateway and
// receiver share it, so it knows neither store nor connection.
//
// # Identity
//
// A record is identified for ever by gateway, stream, epoch and sequence. Sequences of a stream start at 1, are
// assigned in the transaction that commits the record, and so have no holes. The epoch is random; a store that was
// restored or salvaged starts a new one, and with it a new count. A record may arrive more than once, after a crash or a
// lost connection: its receiver drops what it has by the identity.
//
// # Form
//
// On the wire a record is a CloudEvent 1.0 in JSON, and a batch is a JSON array of them:
//
//	{"specversion":"1.0","id":"gw-01/alerts/5f0c9a1e/0000000000000042","source":"/perigee/gw-01/functions/overheat",
//	 "type":"io.perigee.record","subject":"cellar","time":"2026-03-01T06:00:00.000Z","datacontenttype":"application/json",
//	 "gateway":"gw-01","stream":"alerts","epoch":"5f0c9a1e","sequence":"0000000000000042","function":"overheat",
//	 "eventid":"…","timeok":true,"data":{"room":"cellar","hot":true}}
//
// The subject is the key. The sequence is padded to 16 digits, since the CloudEvents extension of that name wants
// text that sorts. timeok says whether the gateway's clock was synchronised at that time.
//
// # Gaps
//
// A gap stands in the place of records that the gateway had to drop. It has the type io.perigee.gap, the sequence of
// the last record that it replaces, and says in its data which are missing and why:
//
//	"data":{"from":1,"to":42,"reasons":{"full":40,"age":2}}
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// The types of CloudEvents that a stream carries.
const (
	TypeRecord = "io.perigee.record"
	TypeGap    = "io.perigee.gap"
)

// Why records are missing: the keys of Gap.Reasons.
const (
	Full    = "full"    // retain.bytes was reached
	Age     = "age"     // older than retain.age
	Refused = "refused" // the far side will never take it; kept in the gateway's quarantine
	Damaged = "damaged" // the gateway's store lost it
)

// Bounds on one record.
const (
	MaxName  = 128       // bytes of a gateway's, stream's or epoch's name
	MaxText  = 64 << 10  // bytes of EventID, Function and Key, each
	MaxData  = 256 << 10 // bytes of Data
	MaxDepth = 128       // arrays and objects inside one another in Data
	MaxEvent = 1 << 20   // bytes of one encoded record
	MaxBatch = 10_000    // records in a batch

	MaxSequence = 1 << 62 // leaves room to count with
)

// ErrBad is wrapped by every error about a record's content: it can never be sent, or never be accepted.
var ErrBad = errors.New("not a record")

// Identity names one record for ever.
type Identity struct {
	Gateway, Stream, Epoch string
	Sequence               uint64 // from 1
}

// String is the record's id: "gw-01/alerts/5f0c9a1e/0000000000000042".
func (i Identity) String() string {
	return i.Gateway + "/" + i.Stream + "/" + i.Epoch + "/" + sequence(i.Sequence)
}

// Record is one record, or one gap if Gap is set.
type Record struct {
	Identity
	EventID  string    // the event that the function ran on
	Function string    // who appended it
	Key      string    // what it is about; "" for a function without keys
	Time     time.Time // of the event, UTC, to the millisecond; zero: unknown
	TimeOK   bool      // the gateway's clock was synchronised then
	Data     []byte    // compact JSON, as Normalize returns it; unused in a gap
	Gap      *Gap
}

// Gap says which records of a stream are missing. It carries the identity of the last of them.
type Gap struct {
	From    uint64            `json:"from"`    // first missing sequence
	To      uint64            `json:"to"`      // last missing sequence
	Reasons map[string]uint64 `json:"reasons"` // how many for which reason
}

// Name returns an error unless s can name a gateway, a stream or an epoch: it becomes a level of a topic and part of the
// identity, so it has only letters, digits, '.', '_' and '-'.
func Name(s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("%w: a name of %d bytes where 1 to %d are allowed", ErrBad, len(s), MaxName)
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("%w: the name %.40q may have only letters, digits, '.', '_' and '-'", ErrBad, s)
		}
	}
	return nil
}

// Normalize returns data as it is kept in a Record: compact JSON in valid UTF-8. It refuses what is no JSON, longer
// than MaxData or deeper than MaxDepth.
func Normalize(data []byte) ([]byte, error) {
	if len(data) > MaxData {
		return nil, fmt.Errorf("%w: data of %d bytes, at most %d are allowed", ErrBad, len(data), MaxData)
	}
	if d := depth(data); d > MaxDepth {
		return nil, fmt.Errorf("%w: data nested %d deep, at most %d is allowed", ErrBad, d, MaxDepth)
	}
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	var b bytes.Buffer
	b.Grow(len(data))
	if err := json.Compact(&b, data); err != nil {
		return nil, fmt.Errorf("%w: data is no JSON: %w", ErrBad, err)
	}
	if b.Len() > MaxData {
		return nil, fmt.Errorf("%w: data of %d bytes, at most %d are allowed", ErrBad, b.Len(), MaxData)
	}
	return b.Bytes(), nil
}

// depth returns how deep arrays and objects nest in text that should be JSON.
func depth(data []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// Check returns an error unless the record can be encoded and will be accepted by Decode.
func (r *Record) Check() error {
	for _, n := range []string{r.Gateway, r.Stream, r.Epoch} {
		if err := Name(n); err != nil {
			return err
		}
	}
	if r.Sequence == 0 || r.Sequence > MaxSequence {
		return fmt.Errorf("%w: sequence %d, they go from 1 to 2^62", ErrBad, r.Sequence)
	}
	if r.Gap != nil {
		return r.Gap.check(r.Sequence)
	}
	if r.Function == "" {
		return fmt.Errorf("%w: it has no function", ErrBad)
	}
	return CheckText(r.EventID, r.Function, r.Key)
}

// CheckText refuses texts longer than MaxText.
func CheckText(texts ...string) error {
	for _, s := range texts {
		if len(s) > MaxText {
			return fmt.Errorf("%w: an attribute of %d bytes, at most %d are allowed", ErrBad, len(s), MaxText)
		}
	}
	return nil
}

func (g *Gap) check(sequence uint64) error {
	if g.From == 0 || g.From > g.To || g.To != sequence {
		return fmt.Errorf("%w: a gap from %d to %d at sequence %d", ErrBad, g.From, g.To, sequence)
	}
	if len(g.Reasons) > 16 {
		return fmt.Errorf("%w: a gap with %d reasons", ErrBad, len(g.Reasons))
	}
	for why := range g.Reasons {
		if Name(why) != nil {
			return fmt.Errorf("%w: a gap for the reason %.40q", ErrBad, why)
		}
	}
	return nil
}

func sequence(n uint64) string {
	s := strconv.FormatUint(n, 10)
	if len(s) < 16 {
		s = "0000000000000000"[len(s):] + s
	}
	return s
}
