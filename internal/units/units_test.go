package units

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "10s": 10 * time.Second, "2m": 2 * time.Minute, "30d": 30 * Day, "1w": 7 * Day, "1h30m": 90 * time.Minute,
		"1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond, "5us": 5 * time.Microsecond, "5µs": 5 * time.Microsecond,
		"1ns": 1, "0.5d": 12 * time.Hour, "9223372036854775807ns": math.MaxInt64, "1.50s": 1500 * time.Millisecond,
	} {
		got, err := ParseDuration(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for in, want := range map[string]string{
		"": "it is empty", "10": "it has no unit", "-1s": "it is negative", "10 s": `unit " s" is unknown`, "s": "a number is missing",
		"1.s": "a digit is missing after the point", "10x": `unit "x" is unknown`, "300000000000d": "it is too large",
		"9223372036854775808ns": "it is too large", "99999999999999999999s": "it is too large", "0.5ns": "it is not a whole number",
		"106751d23h47m17s": "it is too large", "1h30": "it has no unit", "0x10s": "unit", "1e3s": "unit", "inf": "a number is missing",
		"106751.99999999999d": "it is",
	} {
		_, err := ParseDuration(in)
		require.ErrorContains(t, err, want, in)
		require.ErrorContains(t, err, `"1h30m"`, in)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := ParseDuration(strings.Repeat("x", 1<<16))
	require.Less(t, len(err.Error()), 300)
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "128KiB": 128 << 10, "64MiB": 64 << 20, "1GB": 1e9, "1.5GiB": 3 << 29, "1kB": 1000, "1KB": 1000,
		"2TiB": 2 << 40, "1TB": 1e12, "9223372036854775807": math.MaxInt64,
	} {
		got, err := ParseSize(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for in, want := range map[string]string{
		"": "it is empty", "-1": "it is negative", "64M": `unit "M" is unknown`, "64 MiB": "unit", "1.5": "whole", "0.3B": "whole",
		"9223372036854775808": "too large", "8388608TiB": "too large", "MiB": "a number is missing",
	} {
		_, err := ParseSize(in)
		require.ErrorContains(t, err, want, in)
		require.ErrorContains(t, err, `"64MiB"`, in)
	}
}

func TestString(t *testing.T) {
	for want, in := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "1d": Day, "30d": 30 * Day, "36h": 36 * time.Hour, "1.5s": 1500 * time.Millisecond, "250ms": 250 * time.Millisecond,
		"100d1s": 100*Day + time.Second, "1m": time.Minute, "1ns": 1, "-2m": -2 * time.Minute, "15m": 15 * time.Minute, "1.5ms": 1500 * time.Microsecond,
	} {
		require.Equal(t, want, Duration(in).String())
	}
	for want, in := range map[string]int64{
		"0": 0, "64MiB": 64 << 20, "1GB": 1e9, "1536B": 1536, "128KiB": 128 << 10, "-1KiB": -1024, "1TiB": 1 << 40, "20kB": 20000,
	} {
		require.Equal(t, want, Size(in).String())
	}
	require.NotEmpty(t, Duration(math.MinInt64).String())
	require.NotEmpty(t, Size(math.MinInt64).String())
}

func TestStringReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "n")
		n -= n % rapid.SampledFrom([]int64{1, 1e3, 1e6, 1e9, 6e10, 36e11}).Draw(t, "unit")
		d, err := ParseDuration(Duration(n).String())
		if err != nil || int64(d) != n {
			t.Fatalf("%d ns became %q, which reads %d, %v", n, Duration(n), d, err)
		}
		s, err := ParseSize(Size(n).String())
		if err != nil || s != n {
			t.Fatalf("%d bytes became %q, which reads %d, %v", n, Size(n), s, err)
		}
	})
}

func TestMarshal(t *testing.T) {
	type both struct {
		D Duration `json:"d" yaml:"d"`
		S Size     `json:"s" yaml:"s"`
	}
	want := both{D: Duration(90 * time.Second), S: 64 << 20}

	j, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"d":"90s","s":"64MiB"}`, string(j))
	var got both
	require.NoError(t, json.Unmarshal(j, &got))
	require.Equal(t, want, got)
	require.NoError(t, json.Unmarshal([]byte(`{"d":0,"s":512}`), &got))
	require.Equal(t, both{S: 512}, got)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"d":10}`), &got), "it has no unit")

	y, err := yaml.Marshal(want)
	require.NoError(t, err)
	require.Equal(t, "d: 90s\ns: 64MiB\n", string(y))
	got = both{}
	require.NoError(t, yaml.Unmarshal(y, &got))
	require.Equal(t, want, got)
	require.NoError(t, yaml.Unmarshal([]byte("d: '1m'\ns: 512\n"), &got))
	require.Equal(t, both{D: Duration(time.Minute), S: 512}, got)
	require.ErrorContains(t, yaml.Unmarshal([]byte("d: 10\n"), &got), "it has no unit")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10s", "1h30m", "64MiB", "1.5GB", "0", "-1", "1.9999999999999999999d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil {
			back, err := ParseDuration(Duration(d).String())
			if err != nil || back != d || d < 0 {
				t.Fatalf("%q: %d, %d, %v", s, d, back, err)
			}
		}
		if n, err := ParseSize(s); err == nil {
			back, err := ParseSize(Size(n).String())
			if err != nil || back != n || n < 0 {
				t.Fatalf("%q: %d, %d, %v", s, n, back, err)
			}
		}
	})
}

func TestGroup(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 18000: "18 000", 1234567: "1 234 567", -100: "-100", -1000: "-1 000",
		math.MaxInt64: "9 223 372 036 854 775 807", math.MinInt64: "-9 223 372 036 854 775 808"} {
		require.Equal(t, want, Group(n))
	}
}
