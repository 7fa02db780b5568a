package mqttclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
)

// memoryFile holds, over restarts, what the sessions at the broker are subscribed to. A broker does not tell, and a
// session that goes on sending what nobody wants, or what another session sends too, would be a source of duplicates.
const memoryFile = "mqtt-sessions.json"

// memory is the content of the file: at least everything that the sessions may be subscribed to. It is written before a
// subscription is asked for, and after one is given up.
type memory struct {
	Broker   string `json:"broker"`
	Sessions plan   `json:"sessions"`
	dir      string // empty: kept in the process only
	known    bool   // what the sessions had before this process is known
}

// openMemory reads the file. One that is absent, unreadable or about another broker is an empty memory, and known says so; the
// error is for the log only.
func openMemory(dir, broker, id string) (*memory, error) {
	m := &memory{Broker: broker + " " + id, Sessions: plan{}.clone(), dir: dir}
	if dir == "" {
		return m, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, memoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("reading the subscriptions of before: %w", err)
	}
	var old memory
	if err := json.Unmarshal(b, &old); err != nil {
		return m, fmt.Errorf("reading the subscriptions of before: %s: %w", filepath.Join(dir, memoryFile), err)
	}
	if old.Broker == m.Broker {
		m.Sessions, m.known = old.Sessions.clone(), true
	}
	return m, nil
}

// save makes p what is remembered, durably. It writes only what has changed.
func (m *memory) save(p plan) error {
	if m.known && reflect.DeepEqual(m.Sessions, p) {
		return nil
	}
	m.Sessions, m.known = p.clone(), true
	if m.dir == "" {
		return nil
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("remembering the subscriptions: %w", err)
	}
	if err := writeFile(m.dir, memoryFile, b); err != nil {
		return fmt.Errorf("remembering the subscriptions: %w", err)
	}
	return nil
}

// writeFile replaces a file so that after a power cut it is the old or the new one.
func writeFile(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
