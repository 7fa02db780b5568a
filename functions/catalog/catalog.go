// Package catalog keeps which functions this gateway has: for each name where it came from, its active revision, the
// revisions before it, and whether it is paused.
//
// A name has one origin, and another takes it over only if asked to: so the functions directory does not undo at the next
// start what somebody applied by hand or pushed from afar. The files of a revision are kept once, by digest, however many functions and histories
// have it, and go when none has it any more. They carry a checksum and are checked whenever they are read.
//
// # The keys
//
// In the space store.Catalog:
//
//	"f" name     an Entry, as JSON
//	"r" digest   a revision: SHA-256 of what follows, 32 bytes, and its files (see files.go)
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
)

// Origins.
const (
	FromDir = "dir"     // functions.dir of the gateway's configuration
	Applied = "applied" // over the control API
	Pushed  = "pushed"  // over MQTT, signed
)

// Bounds.
const (
	MaxFunctions = 2000 // that a gateway has
	MaxPrevious  = 3    // revisions kept to go back to
)

var (
	// ErrNotFound is wrapped by the errors about a function or revision that is not in the catalog.
	ErrNotFound = errors.New("not in the catalog")
	// ErrBounds is wrapped by the errors about a bundle, or a catalog, that is too large or malformed.
	ErrBounds = errors.New("cannot be kept in the catalog")
)

// Entry is one function.
type Entry struct {
	Name     string    `json:"name"`
	Origin   string    `json:"origin"`             // FromDir, Applied or Pushed
	Revision string    `json:"revision"`           // digest of the active bundle
	Previous []string  `json:"previous,omitempty"` // digests that were active before, the latest first
	Since    time.Time `json:"since"`              // when Revision became active

	Paused   string    `json:"paused,omitempty"`   // why it is paused; empty: it is not
	Faulty   bool      `json:"faulty,omitempty"`   // faults paused it, so that a new revision lifts that
	PausedAt time.Time `json:"paused_at,omitzero"` // since when
}

// OriginError says that a name belongs to another origin.
type OriginError struct {
	Name string
	Has  string // the origin that it has
	Want string // the one that asked
}

// Error says how to take the name over.
func (e *OriginError) Error() string {
	if e.Want == FromDir {
		return fmt.Sprintf("function %s came from origin %q and stays with it: to run the directory's, remove it (perigee functions remove %s) and reload",
			e.Name, e.Has, e.Name)
	}
	return fmt.Sprintf("function %s came from origin %q and stays with it: take it over with --take, or remove it first", e.Name, e.Has)
}

const (
	tagFunction = "f"
	tagRevision = "r"
)

func functionKey(name string) store.Key {
	return store.NewKey(store.Catalog).String(tagFunction).String(name)
}

func decode(key, value []byte) (Entry, error) {
	f := store.Parse(key)
	_ = f.String()
	name := f.String()
	var e Entry
	err := json.Unmarshal(value, &e)
	if err == nil && (f.Err() != nil || e.Name != name || e.Revision == "") {
		err = errors.New("it is not the entry of this name")
	}
	if err != nil {
		return Entry{Name: name}, fmt.Errorf("function %s in the catalog: %w: %w: apply it again", name, store.ErrDamaged, err)
	}
	return e, nil
}

// Get returns a function's entry, or an error that wraps ErrNotFound.
func Get(r store.Reader, name string) (Entry, error) {
	key := functionKey(name)
	value, ok, err := r.Get(key)
	if err != nil {
		return Entry{}, err
	}
	if !ok {
		return Entry{}, fmt.Errorf("function %s is %w", name, ErrNotFound)
	}
	return decode(key, value)
}

// List returns all functions by name. Damaged entries are left out and named in the error: the others are good.
func List(r store.Reader) ([]Entry, error) {
	var all []Entry
	var bad []error
	err := r.Scan(store.NewKey(store.Catalog).String(tagFunction), nil, func(key, value []byte) bool {
		e, err := decode(key, value)
		if err != nil {
			bad = append(bad, err)
		} else {
			all = append(all, e)
		}
		return true
	})
	return all, errors.Join(err, errors.Join(bad...))
}

// Put makes a bundle the active revision of a function and returns the entry as it is now. Of e it takes Name, Origin, Revision
// (the digest of files) and Since; history and pause follow from what was there. A revision that is active already stays as it is, and
// only its origin changes. Without take a name of another origin is refused with an *OriginError.
func Put(tx store.Tx, e Entry, files map[string][]byte, take bool) (Entry, error) {
	if err := checkEntry(e); err != nil {
		return Entry{}, err
	}
	old, err := Get(tx, e.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		if err := checkCount(tx); err != nil {
			return Entry{}, err
		}
	case errors.Is(err, store.ErrDamaged): // this is how it is mended
		old = Entry{}
	case err != nil:
		return Entry{}, err
	case old.Origin != e.Origin && !take:
		return Entry{}, &OriginError{Name: e.Name, Has: old.Origin, Want: e.Origin}
	}
	if err := putFiles(tx, e.Revision, files); err != nil {
		return Entry{}, err
	}
	next := old
	next.Name, next.Origin = e.Name, e.Origin
	next.activate(e.Revision, e.Since)
	return next, replace(tx, old, next)
}

// activate makes a revision the active one.
func (e *Entry) activate(revision string, now time.Time) {
	if e.Revision == revision {
		return
	}
	// A new slice: the old entry still has the other.
	previous := slices.DeleteFunc(append([]string{e.Revision}, e.Previous...), func(r string) bool {
		return r == "" || r == revision
	})
	e.Previous = nil
	if len(previous) > 0 {
		e.Previous = previous[:min(len(previous), MaxPrevious)]
	}
	e.Revision, e.Since = revision, now
	if e.Faulty {
		e.resume()
	}
}

func (e *Entry) resume() { e.Paused, e.Faulty, e.PausedAt = "", false, time.Time{} }

// Rollback makes a previous revision the active one: the one before, or the one whose digest begins with revision. now is when.
func Rollback(tx store.Tx, name, revision string, now time.Time) (Entry, error) {
	old, err := Get(tx, name)
	if err != nil {
		return Entry{}, err
	}
	var fit []string
	for _, p := range old.Previous {
		if len(p) >= len(revision) && p[:len(revision)] == revision {
			fit = append(fit, p)
		}
	}
	switch {
	case len(fit) == 0 && revision == "":
		return Entry{}, fmt.Errorf("an earlier revision of function %s is %w", name, ErrNotFound)
	case len(fit) == 0:
		return Entry{}, fmt.Errorf("revision %s of function %s is %w", revision, name, ErrNotFound)
	case len(fit) > 1 && revision != "":
		return Entry{}, fmt.Errorf("%d revisions of function %s begin with %s: give more digits", len(fit), name, revision)
	}
	if _, err := Files(tx, fit[0]); err != nil {
		return Entry{}, err
	}
	next := old
	next.activate(fit[0], now)
	return next, replace(tx, old, next)
}

// Pause marks a function as paused. faults says that its own faults are the reason, so that a new revision lifts it.
func Pause(tx store.Tx, name, reason string, faults bool, now time.Time) (Entry, error) {
	e, err := Get(tx, name)
	if err != nil {
		return Entry{}, err
	}
	if reason == "" {
		reason = "paused"
	}
	e.Paused, e.Faulty, e.PausedAt = reason, faults, now
	return e, save(tx, e)
}

// Resume lifts a pause.
func Resume(tx store.Tx, name string) (Entry, error) {
	e, err := Get(tx, name)
	if err != nil {
		return Entry{}, err
	}
	e.resume()
	return e, save(tx, e)
}

// Remove takes a function out of the catalog, with the revisions that no other has.
func Remove(tx store.Tx, name string) error {
	old, err := Get(tx, name)
	if errors.Is(err, store.ErrDamaged) {
		tx.Delete(functionKey(name))
		return Sweep(tx)
	}
	if err != nil {
		return err
	}
	tx.Delete(functionKey(name))
	return forget(tx, old.revisions())
}

func (e *Entry) revisions() []string {
	if e.Revision == "" {
		return nil
	}
	return append([]string{e.Revision}, e.Previous...)
}

func checkEntry(e Entry) error {
	switch {
	case e.Name == "" || len(e.Name) > 128:
		return fmt.Errorf("function name %.40q %w: it has 1 to 128 bytes", e.Name, ErrBounds)
	case e.Origin != FromDir && e.Origin != Applied && e.Origin != Pushed:
		return fmt.Errorf("function %s %w: origin %q is none of dir, applied, pushed", e.Name, ErrBounds, e.Origin)
	case len(e.Revision) < 12 || len(e.Revision) > 128:
		return fmt.Errorf("function %s %w: revision %q is no digest", e.Name, ErrBounds, e.Revision)
	}
	return nil
}

func checkCount(tx store.Tx) error {
	n := 0
	err := tx.Scan(store.NewKey(store.Catalog).String(tagFunction), nil, func([]byte, []byte) bool { n++; return true })
	if err == nil && n >= MaxFunctions {
		err = fmt.Errorf("one more function %w: there are %d: remove some", ErrBounds, n)
	}
	return err
}

func save(tx store.Tx, e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("function %s: %w", e.Name, err)
	}
	tx.Put(functionKey(e.Name), b)
	return nil
}

// replace saves an entry and forgets the revisions that only the old one had.
func replace(tx store.Tx, old, next Entry) error {
	if err := save(tx, next); err != nil {
		return err
	}
	gone := slices.DeleteFunc(old.revisions(), func(r string) bool { return slices.Contains(next.revisions(), r) })
	return forget(tx, gone)
}
