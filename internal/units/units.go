// Package units reads and writes the durations and sizes of configuration files: "10s", "1h30m", "30d", "64MiB",
// "1.5GB". A value is written back in the shortest form that is exact, so that what a person reads is what a person
// would have written. It also groups numbers for people: 18 000.
//
// Both types are numbers of the base unit (nanoseconds, bytes) and convert with time.Duration(d) and int64(s).
package units

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written "10s", "2m" or "30d". A day is 24 hours, a week 7 days.
type Duration time.Duration

// Size is a number of bytes that is written "64MiB" (1024 based), "1GB" (1000 based) or "512" (bytes).
type Size int64

// Day is the unit that time lacks, without leap seconds and summer time.
const Day = 24 * time.Hour

const (
	durationForms = `write a number and a unit (ms, s, m, h, d), such as "500ms", "10s", "1h30m" or "30d"`
	sizeForms     = `write bytes or a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as "512", "64MiB" or "1GB"`
)

// unit is one suffix and how many of the base unit it stands for.
type unit struct {
	suffix string
	factor uint64
}

// durationUnits stands from the largest to the smallest; String tries them in this order.
func durationUnits() []unit {
	return []unit{
		{"w", uint64(7 * Day)}, {"d", uint64(Day)}, {"h", uint64(time.Hour)}, {"m", uint64(time.Minute)},
		{"s", uint64(time.Second)}, {"ms", uint64(time.Millisecond)}, {"us", uint64(time.Microsecond)},
		{"µs", uint64(time.Microsecond)}, {"μs", uint64(time.Microsecond)}, {"ns", 1},
	}
}

// sizeUnits stands from the largest to the smallest, 1024 before 1000; String tries them in this order.
func sizeUnits() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6},
		{"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
	}
}

// ParseDuration reads "10s", "1.5h", "1h30m", "30d", "2w" and "0". Negative durations and numbers without a unit are
// refused: in a configuration nobody can tell whether 10 means seconds or minutes.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	n, err := parse(s, durationUnits(), "")
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: %w; %s", clip(s), err, durationForms)
	}
	return time.Duration(n), nil
}

// ParseSize reads "64MiB", "1.5GB", "512B" and "512", and refuses what is not a whole number of bytes.
func ParseSize(s string) (int64, error) {
	n, err := parse(s, sizeUnits(), "B")
	if err != nil {
		return 0, fmt.Errorf("%q is no size: %w; %s", clip(s), err, sizeForms)
	}
	return n, nil
}

var (
	errEmpty    = errors.New("it is empty")
	errNegative = errors.New("it is negative")
	errTooLarge = errors.New("it is too large")
	errInexact  = errors.New("it is not a whole number of the smallest unit")
)

// parse adds up numbers with units. bare is the unit of a number that has none and stands alone; "" refuses that.
func parse(s string, units []unit, bare string) (int64, error) {
	if s == "" {
		return 0, errEmpty
	}
	if s[0] == '-' {
		return 0, errNegative
	}
	var total uint64
	for rest := s; rest != ""; {
		whole, frac, suffix, after, err := number(rest)
		if err != nil {
			return 0, err
		}
		if suffix == "" && rest == s {
			suffix = bare
		}
		factor, err := factorOf(suffix, units)
		if err != nil {
			return 0, err
		}
		n, err := scale(whole, frac, factor)
		if err != nil {
			return 0, err
		}
		sum, carry := bits.Add64(total, n, 0)
		if carry != 0 || sum > 1<<63-1 {
			return 0, errTooLarge
		}
		total, rest = sum, after
	}
	return int64(total), nil
}

// number cuts "1.5" and "h" off "1.5h30m".
func number(s string) (whole, frac, suffix, rest string, err error) {
	digits := func(s string) int {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i
	}
	i := digits(s)
	whole, rest = s[:i], s[i:]
	if whole == "" {
		return "", "", "", "", errors.New("a number is missing")
	}
	if strings.HasPrefix(rest, ".") {
		i = digits(rest[1:])
		if i == 0 {
			return "", "", "", "", errors.New("a digit is missing after the point")
		}
		frac, rest = rest[1:1+i], rest[1+i:]
	}
	i = 0
	for i < len(rest) && (rest[i] < '0' || rest[i] > '9') && rest[i] != '.' {
		i++
	}
	return whole, frac, rest[:i], rest[i:], nil
}

func factorOf(suffix string, units []unit) (uint64, error) {
	for _, u := range units {
		if u.suffix == suffix {
			return u.factor, nil
		}
	}
	if suffix == "" {
		return 0, errors.New("it has no unit")
	}
	return 0, fmt.Errorf("unit %q is unknown", clip(suffix))
}

// scale returns whole.frac times factor if that is a whole number below 2^63.
func scale(whole, frac string, factor uint64) (uint64, error) {
	frac = strings.TrimRight(frac, "0")
	w, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, errTooLarge
	}
	hi, n := bits.Mul64(w, factor)
	if hi != 0 || n > 1<<63-1 {
		return 0, errTooLarge
	}
	if frac == "" {
		return n, nil
	}
	// 18 digits are what fits; no useful fraction has more.
	if len(frac) > 18 {
		return 0, errInexact
	}
	f, _ := strconv.ParseUint(frac, 10, 64)
	pow := uint64(1)
	for range frac {
		pow *= 10
	}
	hi, lo := bits.Mul64(f, factor)
	part, rem := bits.Div64(hi, lo, pow) // f < pow, so that hi < pow
	if rem != 0 {
		return 0, errInexact
	}
	if n += part; n > 1<<63-1 {
		return 0, errTooLarge
	}
	return n, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}
