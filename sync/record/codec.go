package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const timeForm = "2006-01-02T15:04:05.000Z07:00"

// Append appends the record as one CloudEvent in JSON, in one line without its end. The record must pass Check.
func (r *Record) Append(b []byte) []byte {
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = append(b, r.String()...)
	b = append(b, `","source":`...)
	b = appendText(b, r.Source())
	b = append(b, `,"type":"`...)
	b = append(b, r.Type()...)
	b = append(b, '"')
	if r.Key != "" {
		b = append(b, `,"subject":`...)
		b = appendText(b, r.Key)
	}
	if y := r.Time.Year(); !r.Time.IsZero() && y >= 1 && y <= 9999 {
		b = append(b, `,"time":"`...)
		b = r.Time.UTC().AppendFormat(b, timeForm)
		b = append(b, '"')
	}
	b = append(b, `,"datacontenttype":"application/json","gateway":"`...)
	b = append(b, r.Gateway...)
	b = append(b, `","stream":"`...)
	b = append(b, r.Stream...)
	b = append(b, `","epoch":"`...)
	b = append(b, r.Epoch...)
	b = append(b, `","sequence":"`...)
	b = append(b, sequence(r.Sequence)...)
	b = append(b, '"')
	if r.Function != "" {
		b = append(b, `,"function":`...)
		b = appendText(b, r.Function)
	}
	if r.EventID != "" {
		b = append(b, `,"eventid":`...)
		b = appendText(b, r.EventID)
	}
	b = append(b, `,"timeok":`...)
	b = strconv.AppendBool(b, r.TimeOK)
	b = append(b, `,"data":`...)
	b = append(b, r.data()...)
	return append(b, '}')
}

// Type is the record's CloudEvents type.
func (r *Record) Type() string {
	if r.Gap != nil {
		return TypeGap
	}
	return TypeRecord
}

// Source is the record's CloudEvents source: the function that appended it, or the stream that has the gap.
func (r *Record) Source() string {
	if r.Gap != nil {
		return "/perigee/" + r.Gateway + "/streams/" + r.Stream
	}
	return "/perigee/" + r.Gateway + "/functions/" + url.PathEscape(r.Function)
}

func (r *Record) data() []byte {
	if r.Gap == nil {
		return r.Data
	}
	b, err := json.Marshal(r.Gap)
	if err != nil {
		return []byte("null") // cannot be: numbers and names only
	}
	return b
}

// appendText appends s as a JSON string; what is not UTF-8 in it becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			q, _ := json.Marshal(s)
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// envelope is a CloudEvent as far as it is read. Attributes that it does not know are left out.
type envelope struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Subject     string          `json:"subject"`
	Time        string          `json:"time"`
	Gateway     string          `json:"gateway"`
	Stream      string          `json:"stream"`
	Epoch       string          `json:"epoch"`
	Sequence    string          `json:"sequence"`
	Function    string          `json:"function"`
	EventID     string          `json:"eventid"`
	TimeOK      bool            `json:"timeok"`
	Data        json.RawMessage `json:"data"`
}

// Decode reads one CloudEvent. It believes nothing: whatever it accepts passes Check and can be encoded again.
func Decode(b []byte) (*Record, error) {
	if len(b) > MaxEvent {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBad, len(b), MaxEvent)
	}
	if d := depth(b); d > MaxDepth+1 {
		return nil, fmt.Errorf("%w: nested %d deep, at most %d is allowed", ErrBad, d, MaxDepth+1)
	}
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	return e.record()
}

func (e *envelope) record() (*Record, error) {
	if e.SpecVersion != "1.0" {
		return nil, fmt.Errorf("%w: specversion %.20q, only 1.0 is known", ErrBad, e.SpecVersion)
	}
	n, err := strconv.ParseUint(e.Sequence, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: sequence %.40q is no number", ErrBad, e.Sequence)
	}
	r := &Record{
		Identity: Identity{Gateway: e.Gateway, Stream: e.Stream, Epoch: e.Epoch, Sequence: n},
		EventID:  e.EventID, Function: e.Function, Key: e.Subject, TimeOK: e.TimeOK,
	}
	if r.Time, err = parseTime(e.Time); err != nil {
		return nil, err
	}
	switch e.Type {
	case TypeRecord:
		r.Data, err = Normalize(e.Data)
	case TypeGap:
		r.Gap = &Gap{}
		r.EventID, r.Function, r.Key = "", "", ""
		if err = json.Unmarshal(e.Data, r.Gap); err != nil {
			err = fmt.Errorf("%w: a gap's data: %w", ErrBad, err)
		}
	default:
		err = fmt.Errorf("%w: type %.80q, only %s and %s are known", ErrBad, e.Type, TypeRecord, TypeGap)
	}
	if err == nil {
		err = r.Check()
	}
	if err != nil {
		return nil, err
	}
	if e.ID != r.String() {
		return nil, fmt.Errorf("%w: id %.200q, but its attributes make it %s", ErrBad, e.ID, r.Identity)
	}
	return r, nil
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: time %.40q is not RFC 3339", ErrBad, s)
	}
	t = t.UTC().Truncate(time.Millisecond)
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, nil
	}
	return t, nil
}

// DecodeBatch reads a batch: a JSON array of CloudEvents, at most MaxBatch of them. One bad record makes the whole batch bad.
func DecodeBatch(b []byte) ([]*Record, error) {
	if d := depth(b); d > MaxDepth+2 {
		return nil, fmt.Errorf("%w: nested %d deep, at most %d is allowed", ErrBad, d, MaxDepth+2)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("%w: a batch is a JSON array", ErrBad)
	}
	var out []*Record
	for dec.More() {
		if len(out) == MaxBatch {
			return nil, fmt.Errorf("%w: a batch of more than %d", ErrBad, MaxBatch)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%w: record %d of the batch: %w", ErrBad, len(out)+1, err)
		}
		r, err := Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("record %d of the batch: %w", len(out)+1, err)
		}
		out = append(out, r)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: the batch ends too early", ErrBad)
	}
	if rest := strings.TrimSpace(string(b[dec.InputOffset():])); rest != "" {
		return nil, fmt.Errorf("%w: %d bytes after the batch", ErrBad, len(rest))
	}
	return out, nil
}
