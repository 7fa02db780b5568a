package record_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/sync/record"
)

func sample() *record.Record {
	return &record.Record{
		Identity: record.Identity{Gateway: "gw-01", Stream: "alerts", Epoch: "5f0c9a1e", Sequence: 42},
		EventID:  "e1", Function: "overheat", Key: "cellar",
		Time: time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC), TimeOK: true,
		Data: []byte(`{"room":"cellar","hot":true}`),
	}
}

// The form is a promise to whoever reads streams: it changes only on purpose.
func TestForm(t *testing.T) {
	assert.Equal(t, `{"specversion":"1.0","id":"gw-01/alerts/5f0c9a1e/0000000000000042",`+
		`"source":"/perigee/gw-01/functions/overheat","type":"io.perigee.record","subject":"cellar",`+
		`"time":"2026-03-01T06:00:00.000Z","datacontenttype":"application/json","gateway":"gw-01","stream":"alerts",`+
		`"epoch":"5f0c9a1e","sequence":"0000000000000042","function":"overheat","eventid":"e1","timeok":true,`+
		`"data":{"room":"cellar","hot":true}}`, string(sample().Append(nil)))

	gap := &record.Record{Identity: sample().Identity, Gap: &record.Gap{From: 40, To: 42, Reasons: map[string]uint64{record.Full: 3}}}
	assert.Equal(t, `{"specversion":"1.0","id":"gw-01/alerts/5f0c9a1e/0000000000000042",`+
		`"source":"/perigee/gw-01/streams/alerts","type":"io.perigee.gap",`+
		`"datacontenttype":"application/json","gateway":"gw-01","stream":"alerts",`+
		`"epoch":"5f0c9a1e","sequence":"0000000000000042","timeok":false,`+
		`"data":{"from":40,"to":42,"reasons":{"full":3}}}`, string(gap.Append(nil)))
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z0-9._-]{1,20}`)
	rapid.Check(t, func(t *rapid.T) {
		r := &record.Record{
			Identity: record.Identity{Gateway: name.Draw(t, "gateway"), Stream: name.Draw(t, "stream"),
				Epoch: name.Draw(t, "epoch"), Sequence: rapid.Uint64Range(1, record.MaxSequence).Draw(t, "sequence")},
			TimeOK: rapid.Bool().Draw(t, "timeok"),
		}
		if ms := rapid.Int64Range(-60e12, 250e12).Draw(t, "time"); ms%2 == 0 {
			r.Time = time.UnixMilli(ms).UTC()
		}
		if rapid.Bool().Draw(t, "gap") {
			r.Gap = &record.Gap{From: rapid.Uint64Range(1, r.Sequence).Draw(t, "from"), To: r.Sequence,
				Reasons: map[string]uint64{record.Age: rapid.Uint64().Draw(t, "count")}}
		} else {
			r.EventID = rapid.String().Draw(t, "event")
			r.Function = rapid.StringN(1, 20, 100).Draw(t, "function")
			r.Key = rapid.String().Draw(t, "key")
			data, err := json.Marshal(rapid.MapOf(rapid.String(), rapid.Float64Range(-1e9, 1e9)).Draw(t, "data"))
			require.NoError(t, err)
			r.Data, err = record.Normalize(data)
			require.NoError(t, err)
		}
		require.NoError(t, r.Check())
		b := r.Append(nil)
		require.True(t, json.Valid(b))
		require.NotContains(t, string(b), "\n")
		got, err := record.Decode(b)
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
}

func TestBatches(t *testing.T) {
	one := string(sample().Append(nil))
	for in, want := range map[string]int{`[]`: 0, `[` + one + `]`: 1, " [\n" + one + ",\t" + one + " ] \n": 2} {
		got, err := record.DecodeBatch([]byte(in))
		require.NoError(t, err, in)
		assert.Len(t, got, want)
	}
	for _, in := range []string{``, `{}`, one, `[` + one, `[` + one + `,]`, `[` + one + `]]`, `[` + one + `] x`, `[null]`, `[1]`,
		`[` + strings.Repeat(`[`, 1e6), `[` + strings.Repeat(`{},`, record.MaxBatch+1) + `{}]`} {
		_, err := record.DecodeBatch([]byte(in))
		assert.ErrorIs(t, err, record.ErrBad, "%.60s", in)
	}
}

func TestBadRecordsAreRefusedWithAReason(t *testing.T) {
	good := string(sample().Append(nil))
	for _, c := range []struct{ old, new, want string }{
		{`"1.0"`, `"0.3"`, `specversion "0.3"`},
		{`io.perigee.record`, `io.other`, `type "io.other"`},
		{`"sequence":"0000000000000042"`, `"sequence":"x"`, `sequence "x" is no number`},
		{`"sequence":"0000000000000042"`, `"sequence":"0"`, `sequence 0`},
		{`"sequence":"0000000000000042"`, `"sequence":"18446744073709551615"`, `sequence 18446744073709551615`},
		{`"sequence":"0000000000000042"`, `"sequence":"43"`, `but its attributes make it`},
		{`"gateway":"gw-01"`, `"gateway":"a/b"`, `may have only letters`},
		{`"stream":"alerts"`, `"stream":""`, `a name of 0 bytes`},
		{`"epoch":"5f0c9a1e"`, `"epoch":"+"`, `may have only letters`},
		{`"function":"overheat"`, `"function":""`, `no function`},
		{`2026-03-01T06:00:00.000Z`, `yesterday`, `not RFC 3339`},
		{`{"room":"cellar","hot":true}`, strings.Repeat("[", 129) + strings.Repeat("]", 129), `nested`},
		{`{"room":"cellar","hot":true}`, `"` + strings.Repeat("x", record.MaxData) + `"`, `data of`},
		{`,"data":{"room":"cellar","hot":true}`, ``, `no JSON`},
		{`"eventid":"e1"`, `"eventid":"` + strings.Repeat("x", record.MaxText+1) + `"`, `an attribute of`},
		{`"timeok":true`, `"timeok":"yes"`, `timeok`},
	} {
		in := strings.Replace(good, c.old, c.new, 1)
		require.NotEqual(t, good, in)
		_, err := record.Decode([]byte(in))
		require.ErrorIs(t, err, record.ErrBad, c.want)
		assert.ErrorContains(t, err, c.want)
		assert.Less(t, len(err.Error()), 400, "an error does not carry the whole input")
	}
	for _, g := range []record.Gap{{From: 0, To: 42}, {From: 43, To: 42}, {From: 1, To: 41},
		{From: 1, To: 42, Reasons: map[string]uint64{"a b": 1}}} {
		r := &record.Record{Identity: sample().Identity, Gap: &g}
		assert.ErrorIs(t, r.Check(), record.ErrBad)
	}
}

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		" {\n\"a\" : 1 }": `{"a":1}`, `12345678901234567890.10`: `12345678901234567890.10`, "\"a\xff\"": `"a` + "\uFFFD" + `"`, `null`: `null`,
		strings.Repeat("[", 128) + strings.Repeat("]", 128): strings.Repeat("[", 128) + strings.Repeat("]", 128),
		`"[[[\"[[["`: `"[[[\"[[["`,
	} {
		got, err := record.Normalize([]byte(in))
		require.NoError(t, err, in)
		assert.Equal(t, want, string(got))
	}
	for _, in := range []string{``, `{`, `nan`, `1 2`, strings.Repeat("[", 129) + strings.Repeat("]", 129)} {
		_, err := record.Normalize([]byte(in))
		assert.ErrorIs(t, err, record.ErrBad, in)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Append(nil))
	gap := &record.Record{Identity: sample().Identity, Gap: &record.Gap{From: 40, To: 42, Reasons: map[string]uint64{"full": 3}}}
	f.Add(gap.Append(nil))
	f.Add([]byte(`{"specversion":"1.0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := record.Decode(b)
		if err != nil {
			require.ErrorIs(t, err, record.ErrBad)
			return
		}
		again := r.Append(nil)
		require.True(t, utf8.Valid(again))
		r2, err := record.Decode(again)
		require.NoError(t, err)
		require.Equal(t, string(again), string(r2.Append(nil)), "encoding is stable")
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add([]byte(`[` + string(sample().Append(nil)) + `]`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := record.DecodeBatch(b); err != nil {
			require.ErrorIs(t, err, record.ErrBad)
		}
	})
}
