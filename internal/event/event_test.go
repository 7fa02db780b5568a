package event

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/internal/wire"
)

func encode(e *Event) []byte {
	w := &wire.Writer{}
	e.Encode(w)
	return w.Data()
}

func decode(data []byte) (*Event, error) {
	r := wire.NewReader(data)
	e, err := Decode(r)
	if err == nil {
		err = r.Done()
	}
	return e, err
}

func drawn() *rapid.Generator[*Event] {
	return rapid.Custom(func(t *rapid.T) *Event {
		text := func(name string) string { return rapid.String().Draw(t, name) }
		e := &Event{
			ID: text("id"), Source: text("source"), Type: text("type"), Subject: text("subject"), Topic: text("topic"), Key: text("key"),
			Time:     time.UnixMilli(rapid.Int64Range(-1<<45, 1<<45).Draw(t, "time")).UTC(),
			Seq:      rapid.Uint64().Draw(t, "seq"),
			Boot:     rapid.Uint32().Draw(t, "boot"),
			Mono:     time.Duration(rapid.Int64().Draw(t, "mono")),
			Chain:    rapid.Uint16().Draw(t, "chain"),
			TimeOK:   rapid.Bool().Draw(t, "time ok"),
			Retained: rapid.Bool().Draw(t, "retained"),
			HasKey:   rapid.Bool().Draw(t, "has key"),
		}
		if rapid.Bool().Draw(t, "data") {
			e.Data = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")...)
		}
		return e
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawn().Draw(t, "event")
		got, err := decode(encode(e))
		require.NoError(t, err)
		require.Equal(t, e, got)
	})
}

func TestCutEventsAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := encode(drawn().Draw(t, "event"))
		cut := rapid.IntRange(0, len(data)-1).Draw(t, "cut")
		_, err := decode(data[:cut])
		require.ErrorIs(t, err, wire.ErrCorrupt)
	})
}

func TestOtherVersionsAreRefused(t *testing.T) {
	data := encode(&Event{ID: "x"})
	data[0] = codecVersion + 1
	_, err := decode(data)
	require.EqualError(t, err, "event encoded in version 2, this gateway reads version 1")
}

// Events lie in the store over updates: what version 1 wrote must be read for ever.
func TestVersion1StaysReadable(t *testing.T) {
	want := &Event{
		ID: "i", Source: "mqtt", Type: Message, Subject: "a/b", Time: time.UnixMilli(1700000000123).UTC(), TimeOK: true, Seq: 300, Boot: 2,
		Mono: time.Second, Data: []byte(`{}`), Topic: "a/b", Retained: true, Key: "k", HasKey: true, Chain: 3,
	}
	stored := "\x01\x01i\x04mqtt\x07message\x03a/b\xf6\xa1\xab\xfe\xf9\x62\x01\xac\x02\x02\x80\xa8\xd6\xb9\x07\x03{}\x03a/b\x01\x01k\x01\x03"
	require.Equal(t, stored, string(encode(want)))
	got, err := decode([]byte(stored))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestNumbersBeyondTheirTypeAreRefused(t *testing.T) {
	data := encode(&Event{})
	require.Equal(t, byte(0), data[len(data)-1])
	long := append(data[:len(data)-1:len(data)-1], 0x80, 0x80, 0x04) // Chain: 65536
	_, err := decode(long)
	require.ErrorIs(t, err, wire.ErrCorrupt)
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(&Event{ID: "i", Source: "mqtt", Type: Message, Data: []byte("x")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err != nil {
			return
		}
		again, err := decode(encode(e))
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
