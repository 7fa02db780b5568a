// Package secrets reads what only a function may know from files, and hides it wherever people look.
//
// A secret is the content of a file that the configuration names, or of a credential that systemd has put where the environment
// variable CREDENTIALS_DIRECTORY says. Values stay in memory: they are not stored, and not logged. [Set.Mask] takes them out of text for people.
package secrets

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

const (
	// MaxValue is the size of the largest secret in bytes.
	MaxValue = 4 << 10
	// minMasked is the size of the smallest secret that is looked for in text: shorter ones would be found everywhere.
	minMasked = 6
	// maxEarlier bounds the values of earlier loads that are masked still.
	maxEarlier = 256
)

// Hidden stands in text where a secret was.
const Hidden = "***"

// ErrNone says that there is no secret of a name.
var ErrNone = errors.New("there is no such secret")

// Set is the secrets of a gateway. It is safe for use from several goroutines.
type Set struct {
	credentials string // the directory of systemd's credentials, "" without
	now         atomic.Pointer[values]
}

// values do not change once they are in force.
type values struct {
	files map[string]string
	by    map[string]string
	wrong map[string]error
	long  []string // values that are masked, the longest first
}

// Open reads the files by the names of their secrets. What cannot be read is no secret until it can, and Problems tells why.
func Open(files map[string]string, credentials string) *Set {
	s := &Set{credentials: credentials}
	s.Load(files)
	return s
}

// Load reads all files anew. Values that they had before stay masked until the gateway ends.
func (s *Set) Load(files map[string]string) {
	v := &values{files: maps.Clone(files), by: map[string]string{}, wrong: map[string]error{}}
	for name, file := range files {
		text, err := read(file)
		if err != nil {
			v.wrong[name] = fmt.Errorf("secret %q: %w", name, err)
			continue
		}
		v.by[name] = text
	}
	for name, text := range s.fromSystemd(v) {
		v.by[name] = text
	}
	for _, text := range v.by {
		if len(text) >= minMasked {
			v.long = append(v.long, text)
		}
	}
	if was := s.now.Load(); was != nil { // what began with an earlier value may still say it
		v.long = append(v.long, was.long[:min(len(was.long), maxEarlier)]...)
	}
	slices.SortFunc(v.long, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	v.long = slices.Compact(v.long)
	s.now.Store(v)
}

// maxCredentials bounds how many files of the directory of credentials are looked at.
const maxCredentials = 256

// fromSystemd reads the credentials whose names the configuration does not have.
func (s *Set) fromSystemd(v *values) map[string]string {
	found := map[string]string{}
	if s.credentials == "" {
		return found
	}
	entries, err := os.ReadDir(s.credentials)
	if err != nil {
		return found // systemd makes it only for a unit that has any
	}
	for _, e := range entries[:min(len(entries), maxCredentials)] {
		name := e.Name()
		if _, ours := v.files[name]; ours || e.IsDir() {
			continue
		}
		text, err := read(filepath.Join(s.credentials, name))
		if err != nil {
			v.wrong[name] = fmt.Errorf("credential %q: %w", name, err)
			continue
		}
		found[name] = text
	}
	return found
}

// read reads one secret: a file that others may not read, with one line of text, or several, without the last line break.
func read(file string) (string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no file %s", file)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", file)
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("everybody on this machine may read or change %s: chmod o= %s", file, file)
	case info.Size() > MaxValue+2:
		return "", fmt.Errorf("%s has %d bytes, at most %d are allowed", file, info.Size(), MaxValue)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxValue+3))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case text == "":
		return "", fmt.Errorf("%s is empty", file)
	case len(text) > MaxValue:
		return "", fmt.Errorf("%s has more than %d bytes", file, MaxValue)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return "", fmt.Errorf("%s is not text; write it in base64 and decode it in the function", file)
	}
	return text, nil
}

// Get returns a secret. The error wraps ErrNone, or says what is wrong with its file.
func (s *Set) Get(name string) (string, error) {
	v := s.now.Load()
	if text, ok := v.by[name]; ok {
		return text, nil
	}
	if err := v.wrong[name]; err != nil {
		return "", err
	}
	return "", fmt.Errorf("secret %q: %w", name, ErrNone)
}

// Mask puts Hidden in the place of every secret in a text for people. Secrets of less than 6 bytes stay.
func (s *Set) Mask(text string) string {
	for _, secret := range s.now.Load().long {
		if len(text) >= len(secret) {
			text = strings.ReplaceAll(text, secret, Hidden)
		}
	}
	return text
}

// Longest is the size of the longest secret that Mask finds, 0 if there is none.
func (s *Set) Longest() int {
	if long := s.now.Load().long; len(long) > 0 {
		return len(long[0])
	}
	return 0
}

// Problems says what is wrong with which file, in order.
func (s *Set) Problems() (list []error) {
	wrong := s.now.Load().wrong
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		list = append(list, wrong[name])
	}
	return list
}
