package usage

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
)

func TestSampleOf(t *testing.T) {
	o := &functions.Outcome{Result: []byte("12345"), Effects: []functions.Effect{{Name: "ab", Value: []byte("cde")}}, Logs: []functions.LogLine{{Text: "four"}}, Reads: []functions.Read{{Name: "r"}},
		Usage: functions.Usage{Wall: 3, CPU: -1, Memory: 7}, Fault: &functions.Fault{Kind: functions.FaultMemory}}
	require.Equal(t, Sample{Fault: functions.FaultMemory, Wall: 3, Memory: 7, In: 9, Out: 10, Effects: 1, Reads: 1, Log: 5}, SampleOf(9, o))
	require.True(t, func() bool { s := SampleOf(0, &functions.Outcome{Retry: &functions.RetryAsk{}}); return s.Retry }())
}

func TestEndings(t *testing.T) {
	names := Endings()
	require.Equal(t, [ended]string{"ok", "retry", "other", "error", "timeout", "memory", "killed", "denied", "bad-output"}, names, "the order is that of the store")
	var r Record
	for i, name := range names {
		s := Sample{}
		switch name {
		case "ok":
		case "retry":
			s.Retry = true
		case "other":
			s.Fault = "from a later version"
		default:
			s.Fault = functions.FaultKind(name)
		}
		r.sample(&s)
		require.EqualValues(t, 1, r.Outcomes[i], name)
	}
	require.EqualValues(t, ended, r.Runs())
	require.EqualValues(t, ended-2, r.Faults())
	require.EqualValues(t, 1, r.Count(functions.FaultTimeout))
}

func TestBuckets(t *testing.T) {
	last := 0
	for v := int64(0); v < 1<<16; v++ {
		i := bucket(v)
		require.GreaterOrEqual(t, i, last)
		require.Less(t, v, edge(i))
		require.True(t, v < 2 || edge(i) <= v+v/2+1, "%d is in a bucket up to %d", v, edge(i))
		last = i
	}
	require.Equal(t, steps-1, bucket(math.MaxInt64))
	require.Equal(t, 0, bucket(-1))
}

func TestQuantile(t *testing.T) {
	var none Histogram
	require.Zero(t, none.Quantile(0.99))
	rapid.Check(t, func(r *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(0, 1<<34), 1, 200).Draw(r, "all")
		q := rapid.SampledFrom([]float64{0, 0.5, 0.9, 0.99, 1}).Draw(r, "q")
		var h Histogram
		for _, v := range all {
			h.add(v)
		}
		slices.Sort(all)
		want := all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
		got := h.Quantile(q)
		require.GreaterOrEqual(r, got, want)
		require.LessOrEqual(r, got, all[len(all)-1])
		if want < 1<<31 {
			require.LessOrEqual(r, got, max(want+want/2, 1))
		}
		require.Equal(r, all[len(all)-1], h.Max())
		require.EqualValues(r, len(all), h.N())
	})
}

func TestCountsDoNotOverflow(t *testing.T) {
	var h Histogram
	h.count(5, math.MaxUint32)
	h.count(5, 7)
	require.Equal(t, int64(math.MaxUint32), h.N())
}

func drawRecord(r *rapid.T) *Record {
	rec := &Record{}
	for range rapid.IntRange(0, 30).Draw(r, "samples") {
		rec.sample(&Sample{Fault: rapid.SampledFrom([]functions.FaultKind{"", functions.FaultError}).Draw(r, "fault"), Wall: time.Duration(rapid.Int64Range(0, 1<<50).Draw(r, "wall")),
			CPU: time.Duration(rapid.Int64Range(0, 1<<50).Draw(r, "cpu")), Memory: rapid.Int64Range(0, 1<<50).Draw(r, "memory"), In: rapid.Int64Range(0, 1<<50).Draw(r, "in"),
			Out: rapid.Int64Range(0, 1<<50).Draw(r, "out"), Effects: rapid.IntRange(0, 1<<20).Draw(r, "effects")})
	}
	rec.Written, rec.State, rec.PerSecond = rapid.Int64Range(0, 1<<50).Draw(r, "written"), rapid.Int64Range(0, 1<<50).Draw(r, "state"), rapid.Int64Range(0, 1<<20).Draw(r, "rate")
	return rec
}

func TestRecordsReadBackAndAddUp(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := drawRecord(r), drawRecord(r)
		back, err := decodeRecord(a.encode())
		require.NoError(r, err)
		require.Equal(r, a, back)
		ab, ba := *a, *b
		ab.Add(b)
		ba.Add(a)
		require.Equal(r, ab, ba)
		require.Equal(r, a.Runs()+b.Runs(), ab.Runs())
		require.Less(r, len(ab.encode()), 1600, "so that an update takes many")
	})
}

func TestCorruptRecords(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := drawRecord(r).encode()
		cut := rapid.IntRange(0, len(b)-1).Draw(r, "cut")
		_, err := decodeRecord(b[:cut])
		require.Error(r, err)
		b[rapid.IntRange(0, len(b)-1).Draw(r, "at")] ^= byte(rapid.IntRange(1, 255).Draw(r, "bits"))
		if rec, err := decodeRecord(b); err == nil {
			require.GreaterOrEqual(r, rec.Wall, time.Duration(0))
		}
		_, _ = decodeBucket(rapid.SliceOf(rapid.Byte()).Draw(r, "bucket"))
	})
	_, err := decodeRecord([]byte{recordVersion + 1})
	require.ErrorContains(t, err, "version 2")
	_, err = decodeBucket([]byte{bucketVersion + 1})
	require.ErrorContains(t, err, "version 2")
	_, err = decodeBucket((&bucketInfo{grain: "w"}).encode())
	require.ErrorContains(t, err, `kind "w"`)
}
