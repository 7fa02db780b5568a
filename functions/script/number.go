package script

import (
	"math"
	"strconv"
	"strings"
)

const luaSpace = " \t\n\v\f\r"

// parseNumber reads a number as Lua does: decimal, with a fraction and an exponent, or hexadecimal, with space around it.
// Unlike the library's it takes no octal, no binary, no underscores, and 1e3.
func parseNumber(s string) (float64, bool) {
	s = strings.Trim(s, luaSpace)
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || digits == "" {
		return 0, false
	}
	if len(digits) > 2 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X') {
		n, ok := parseHex(digits[2:])
		if s[0] == '-' {
			n = -n
		}
		return n, ok
	}
	for _, c := range []byte(digits) {
		if (c < '0' || c > '9') && c != '.' && c != 'e' && c != 'E' && c != '+' && c != '-' {
			return 0, false
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(n, 0) {
		return 0, false
	}
	return n, true
}

// parseHex reads hexadecimal digits of any number, with a fraction and an exponent of two if there are.
func parseHex(s string) (float64, bool) {
	if strings.ContainsAny(s, ".pP") && !strings.Contains(s, "_") {
		if !strings.ContainsAny(s, "pP") {
			s += "p0"
		}
		n, err := strconv.ParseFloat("0x"+s, 64)
		return n, err == nil || math.IsInf(n, 0)
	}
	n := 0.0
	for _, c := range []byte(s) {
		d, ok := digitValue(c)
		if !ok || d >= 16 {
			return 0, false
		}
		n = n*16 + float64(d)
	}
	return n, s != ""
}

// digitValue is the value of a digit in bases up to 36.
func digitValue(c byte) (int, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0'), true
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 10, true
	case c >= 'A' && c <= 'Z':
		return int(c-'A') + 10, true
	}
	return 0, false
}

// parseInBase reads a whole number in a base from 2 to 36, as tonumber(s, base) does.
func parseInBase(s string, base int) (float64, bool) {
	s = strings.Trim(s, luaSpace)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	if base == 16 && len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		s = s[2:]
	}
	n := 0.0
	for _, c := range []byte(s) {
		d, ok := digitValue(c)
		if !ok || d >= base {
			return 0, false
		}
		n = n*float64(base) + float64(d)
	}
	if neg {
		n = -n
	}
	return n, s != ""
}

// numberText is a number as tostring writes it: whole ones without exponent, others with as many digits as it takes to read the
// same number back.
func numberText(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	return string(appendNumber(nil, f))
}

// appendNumber writes a finite number. A whole one of 64 bits has all its digits: it reads back as the same number, where
// shorter ones could be an integer that no Lua number holds.
func appendNumber(out []byte, f float64) []byte {
	if f != math.Trunc(f) || math.Abs(f) >= 1<<64 {
		return appendFraction(out, f)
	}
	if f < 0 {
		out = append(out, '-')
	}
	return strconv.AppendUint(out, uint64(math.Abs(f)), 10)
}

// appendFraction writes a number that is not whole, or too large for an integer. Only what would be mostly zeros has an exponent:
// a meter's 1234567.5 stays that.
func appendFraction(out []byte, f float64) []byte {
	form := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		form = 'e'
	}
	return strconv.AppendFloat(out, f, form, -1, 64)
}
