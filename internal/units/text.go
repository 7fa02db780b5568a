package units

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// String returns the shortest exact form: "90s", "1d", "100d1s", "1.5s", "0".
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	if d < 0 {
		// Only what was computed can be negative; it is for reading, ParseDuration refuses it.
		return "-" + formatDuration(-uint64(d))
	}
	return formatDuration(uint64(d))
}

// formatDuration picks the shortest of one unit ("90s"), several ("100d1s") and a fraction ("1.5s").
func formatDuration(n uint64) string {
	best := ""
	try := func(s string) {
		if s != "" && (best == "" || len(s) < len(best)) {
			best = s
		}
	}
	var parts strings.Builder
	rest := n
	for _, u := range durationUnits() {
		if u.suffix == "w" || u.suffix == "µs" || u.suffix == "μs" {
			continue // read, but not written: 14d needs no thought
		}
		if n%u.factor == 0 {
			try(strconv.FormatUint(n/u.factor, 10) + u.suffix)
		}
		if q := rest / u.factor; q > 0 {
			parts.WriteString(strconv.FormatUint(q, 10) + u.suffix)
			rest -= q * u.factor
		}
		if u.factor <= uint64(time.Second) {
			try(fraction(n, u))
		}
	}
	try(parts.String())
	return best
}

// fraction returns n as a decimal fraction of the unit, "" where there is nothing before the point.
func fraction(n uint64, u unit) string {
	if n < u.factor || n%u.factor == 0 {
		return ""
	}
	digits := len(strconv.FormatUint(u.factor, 10)) - 1
	frac := strconv.FormatUint(n%u.factor, 10)
	frac = strings.Repeat("0", digits-len(frac)) + frac
	return strconv.FormatUint(n/u.factor, 10) + "." + strings.TrimRight(frac, "0") + u.suffix
}

// String returns the number in the largest unit in which it is whole: "64MiB", "1GB", "1536B", "0".
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	sign, n := "", uint64(s)
	if s < 0 {
		sign, n = "-", -n
	}
	best := ""
	for _, u := range sizeUnits() {
		if n%u.factor != 0 || u.suffix == "KB" {
			continue
		}
		if t := strconv.FormatUint(n/u.factor, 10) + u.suffix; best == "" || len(t) < len(best) {
			best = t
		}
	}
	return sign + best
}

// MarshalText writes String's form; YAML and JSON use it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// UnmarshalJSON reads a string, or the number 0.
func (d *Duration) UnmarshalJSON(data []byte) error { return d.UnmarshalText(unquote(data)) }

// UnmarshalYAML reads a scalar, quoted or not.
func (d *Duration) UnmarshalYAML(data []byte) error { return d.UnmarshalText(unquote(data)) }

// MarshalText writes String's form; YAML and JSON use it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = Size(v)
	return nil
}

// UnmarshalJSON reads a string, or a number of bytes.
func (s *Size) UnmarshalJSON(data []byte) error { return s.UnmarshalText(unquote(data)) }

// UnmarshalYAML reads a scalar, quoted or not.
func (s *Size) UnmarshalYAML(data []byte) error { return s.UnmarshalText(unquote(data)) }

// unquote takes the quotes off a scalar; no valid value has an escape in it.
func unquote(data []byte) []byte {
	data = bytes.TrimSpace(data)
	if n := len(data); n >= 2 && (data[0] == '"' || data[0] == '\'') && data[n-1] == data[0] {
		return data[1 : n-1]
	}
	return data
}

// Group writes a number for people, its thousands apart: 18 000.
func Group(n int64) string {
	s := strconv.FormatInt(n, 10)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
