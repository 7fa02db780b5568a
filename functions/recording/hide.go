package recording

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/functions"
)

// Hidden stands where a secret was, and is the value of every secret when a recording is played.
const Hidden = "***"

// minHidden is the length of the shortest secret that is looked for, in bytes: shorter ones occur in any text.
const minHidden = 4

// hider takes secrets out of what an invocation read and did: those of the whole gateway, and its own in every form in which functions
// usually pass them on, encoded for a URL, in base64 or in hexadecimal.
type hider struct {
	mask  func(string) string // of the gateway; nil: it has none
	forms []string            // the longest first
}

func newHider(mask func(string) string, own []functions.Secret) *hider {
	h := &hider{mask: mask}
	for _, s := range own {
		if len(s.Value) >= minHidden {
			h.forms = append(h.forms, formsOf(s.Value)...)
		}
	}
	slices.SortFunc(h.forms, func(a, b string) int { return len(b) - len(a) })
	h.forms = slices.Compact(h.forms)
	return h
}

// formsOf are the texts that show a secret.
func formsOf(secret string) []string {
	list := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret)))}
	for before := range 3 { // what stands before it shifts its bits; the characters that it shares with its neighbours are left away
		padded := append(make([]byte, before), secret...)
		from := (before*8 + 5) / 6
		to := len(padded) * 8 / 6
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if text := e.EncodeToString(padded); to-from >= minHidden {
				list = append(list, text[from:to])
			}
		}
	}
	return list
}

// idle says that there is nothing to hide.
func (h *hider) idle() bool { return h.mask == nil && len(h.forms) == 0 }

func (h *hider) text(s string) string {
	if h.mask != nil {
		s = h.mask(s)
	}
	for _, f := range h.forms {
		s = strings.ReplaceAll(s, f, Hidden)
	}
	return s
}

// bytes hides in a payload: in the texts and numbers of JSON, however they are escaped there, and in what is no JSON as it stands.
func (h *hider) bytes(b []byte) []byte {
	if b == nil || h.idle() {
		return b
	}
	if json.Valid(b) {
		if out, changed := h.json(b); changed {
			b = out
		}
		return b
	}
	return []byte(h.text(string(b)))
}

// json hides in JSON and says whether it had to. What it does not change stays byte for byte.
func (h *hider) json(b []byte) (out []byte, changed bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	last := int64(0) // behind what was copied
	for {
		t, err := d.Token()
		if err != nil {
			return append(out, b[last:]...), changed
		}
		at := d.InputOffset()
		hidden, is := "", false
		switch t := t.(type) {
		case string:
			hidden = h.text(t)
			is = hidden != t
		case json.Number:
			hidden = h.text(t.String())
			is = hidden != t.String()
		}
		if is {
			changed = true
			raw := b[last:at]
			out = append(out, raw[:len(raw)-tokenLen(raw)]...)
			quoted, _ := json.Marshal(hidden)
			out = append(out, quoted...)
		} else {
			out = append(out, b[last:at]...)
		}
		last = at
	}
}

// tokenLen is the length of the text or number at the end of raw, before which may stand blanks and punctuation.
func tokenLen(raw []byte) int {
	start := bytes.IndexFunc(raw, func(r rune) bool { return !strings.ContainsRune(" \t\r\n,:", r) })
	return len(raw) - max(start, 0)
}
