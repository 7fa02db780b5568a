// Package config is gateway.yaml: its types, its defaults, and what makes a file right or wrong.
//
// A configuration comes about in two steps. [Load] finds the file, reads it over the defaults and lets the command line
// win; unknown keys and values of the wrong form are errors with file, line and column. [Config.Validate] then looks at the meaning:
// ranges, names, what goes together, files that must exist. A command that only needs to know where the gateway's socket is leaves the
// second step out.
//
// Every key is optional. What the file does not say is what [Default] says, and configs/gateway.yaml, which explains every key, is equal
// to it: a test sees to that. Relative paths start in the directory of the file; without a file, in the data directory.
//
// Parts that belong to others stay undecoded: a device is its kind and a [yamlfile.Node] that its driver reads later.
package config

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Config is one configuration, with every default filled in and every path absolute. It is not written to once it is loaded.
type Config struct {
	ID        string                    `yaml:"id" json:"id"`             // the gateway's name: one level of MQTT topics
	DataDir   string                    `yaml:"data_dir" json:"data_dir"` // where the store is
	API       API                       `yaml:"api" json:"api"`
	Broker    Broker                    `yaml:"broker" json:"broker"`
	Store     Store                     `yaml:"store" json:"store"`
	Workers   Workers                   `yaml:"workers" json:"workers"`
	Functions Functions                 `yaml:"functions" json:"functions"`
	Settings  map[string]map[string]any `yaml:"settings" json:"settings"` // function → name → bool, float64 or string
	Secrets   map[string]Secret         `yaml:"secrets" json:"secrets"`
	Devices   map[string]Device         `yaml:"devices" json:"devices"`
	Uplinks   Uplinks                   `yaml:"uplinks" json:"uplinks"`
	Streams   map[string]Stream         `yaml:"streams" json:"streams"`
	Log       Log                       `yaml:"log" json:"log"`

	File string `yaml:"-" json:"-"` // absolute; empty: there is none, and everything is a default
	Dir  string `yaml:"-" json:"-"` // where relative paths start

	root yamlfile.Node // for the line of what is wrong
}

// API is the control API.
type API struct {
	Socket string `yaml:"socket" json:"socket"` // Unix socket; perigee.sock in the data directory
}

// Broker is the local MQTT broker: the embedded one, or with URL another.
type Broker struct {
	Listen       []string        `yaml:"listen" json:"listen,omitempty"` // of the embedded one: tcp://, tls:// or unix://; none with URL
	Users        map[string]User `yaml:"users" json:"users,omitempty"`   // of the embedded one; without any, anonymous on this machine only
	URL          string          `yaml:"url" json:"url,omitempty"`
	Username     string          `yaml:"username" json:"username,omitempty"`
	PasswordFile string          `yaml:"password_file" json:"password_file,omitempty"`
	TLS          TLS             `yaml:"tls" json:"tls,omitzero"` // to URL; with tls:// in Listen, what the embedded one shows
}

// Embedded says whether the gateway is the broker itself.
func (b Broker) Embedded() bool { return b.URL == "" }

// User is who may connect to the embedded broker. An empty list allows nothing.
type User struct {
	PasswordFile string   `yaml:"password_file" json:"password_file"`
	Publish      []string `yaml:"publish" json:"publish"`     // MQTT filters
	Subscribe    []string `yaml:"subscribe" json:"subscribe"` // MQTT filters
}

// TLS is three PEM files.
type TLS struct {
	CA   string `yaml:"ca" json:"ca,omitempty"`     // whom to trust; the system's authorities
	Cert string `yaml:"cert" json:"cert,omitempty"` // who we are; with Key
	Key  string `yaml:"key" json:"key,omitempty"`
}

// Store is how the gateway keeps what it has accepted.
type Store struct {
	Durability string         `yaml:"durability" json:"durability"`               // power, crash
	Linger     units.Duration `yaml:"linger" json:"linger"`                       // 0: a group waits for nothing
	Profile    string         `yaml:"profile" json:"profile"`                     // auto, small, normal
	MinFree    units.Size     `yaml:"min_free" json:"min_free"`                   // free space below which nothing more is accepted
	KeyFile    string         `yaml:"key_file" json:"key_file,omitempty"`         // encrypts the store and its backups; empty: they are plain
	OldKeyFile string         `yaml:"old_key_file" json:"old_key_file,omitempty"` // the key before this one
}

// Workers are the processes that run functions.
type Workers struct {
	Max    int            `yaml:"max" json:"max"`
	Warm   int            `yaml:"warm" json:"warm"`     // kept when idle
	Idle   units.Duration `yaml:"idle" json:"idle"`     // after which one above Warm ends
	Memory units.Size     `yaml:"memory" json:"memory"` // of one process
}

// Functions is where functions are found.
type Functions struct {
	Dir string `yaml:"dir" json:"dir"` // each folder in it is one
}

// Secret is where a value stands that only functions may know. It is not an error that the file is absent: what needs it waits until it is there.
type Secret struct {
	File string `yaml:"file" json:"file"`
}

// UnmarshalNode reads {file: …}. An error does not repeat what stands there instead: it may be the secret.
func (s *Secret) UnmarshalNode(n yamlfile.Node) error {
	type plain Secret // without this method
	if n.Kind() != yamlfile.Map && n.Kind() != yamlfile.Null {
		return n.Errorf("must name the file that it stands in, like {file: token.txt}")
	}
	return n.Decode((*plain)(s))
}

// Device is one device: its kind, and what its driver reads.
type Device struct {
	Kind string
	Node yamlfile.Node
}

// UnmarshalNode reads {KIND: …}.
func (d *Device) UnmarshalNode(n yamlfile.Node) error {
	keys := n.Keys()
	if len(keys) != 1 {
		return n.Errorf("must be one kind with its settings, like {sim: {wave: sine}}")
	}
	d.Kind, d.Node = keys[0], n.Items()[0]
	return nil
}

// MarshalJSON writes {"KIND": …}.
func (d Device) MarshalJSON() ([]byte, error) {
	var v any
	if err := d.Node.Decode(&v); err != nil {
		return nil, err
	}
	if v == nil {
		v = map[string]any{}
	}
	return json.Marshal(map[string]any{d.Kind: hidePasswords(v)})
}

// Uplinks are the connections to the cloud, in the order of the file: the first takes the streams that name none.
type Uplinks []Uplink

// Uplink is one connection.
type Uplink struct {
	Name string
	Kind string // mqtt
	MQTT MQTT
}

// MQTT is how to reach a broker in the cloud.
type MQTT struct {
	URL          string `yaml:"url" json:"url"`
	Username     string `yaml:"username" json:"username,omitempty"`
	PasswordFile string `yaml:"password_file" json:"password_file,omitempty"`
	TLS          TLS    `yaml:"tls" json:"tls,omitzero"`
}

// UnmarshalNode reads {NAME: {KIND: …}, …} and keeps the order.
func (u *Uplinks) UnmarshalNode(n yamlfile.Node) error {
	if n.Kind() == yamlfile.Null {
		return nil
	}
	if n.Kind() != yamlfile.Map {
		return n.Errorf("must be a map of names to uplinks, like {main: {mqtt: {url: \"mqtts://broker.example.com:8883\"}}}")
	}
	*u = nil
	var errs []error
	for i, name := range n.Keys() {
		item := n.Items()[i]
		link := Uplink{Name: name, Kind: "mqtt"}
		var body struct {
			MQTT *MQTT `yaml:"mqtt"`
		}
		err := item.Decode(&body)
		if err == nil && body.MQTT == nil {
			err = item.Errorf("must say how to connect, like {mqtt: {url: \"mqtts://broker.example.com:8883\"}}")
		}
		if errs = append(errs, err); body.MQTT != nil {
			link.MQTT = *body.MQTT
		}
		*u = append(*u, link)
	}
	return errors.Join(errs...)
}

// MarshalJSON writes an object in the order of the file.
func (u Uplinks) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, link := range u {
		name, err := json.Marshal(link.Name)
		if err != nil {
			return nil, err
		}
		link.MQTT.URL = hidePassword(link.MQTT.URL)
		body, err := json.Marshal(map[string]MQTT{link.Kind: link.MQTT})
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, name...), ':'), body...)
	}
	return append(out, '}'), nil
}

// Stream is one queue of records for the cloud.
type Stream struct {
	Uplink   string `yaml:"uplink" json:"uplink"`     // by name; empty: the first
	Priority string `yaml:"priority" json:"priority"` // high, normal, low
	Retain   Retain `yaml:"retain" json:"retain"`
	Batch    Batch  `yaml:"batch" json:"batch"`
}

// Retain bounds what a stream keeps while there is no connection.
type Retain struct {
	Bytes units.Size     `yaml:"bytes" json:"bytes"`
	Age   units.Duration `yaml:"age" json:"age"`
	Full  string         `yaml:"full" json:"full"` // drop-oldest, drop-newest
}

// Batch is how records travel.
type Batch struct {
	Records int            `yaml:"records" json:"records"`
	Bytes   units.Size     `yaml:"bytes" json:"bytes"`
	Linger  units.Duration `yaml:"linger" json:"linger"` // how long one that is not full may wait
}

// UnmarshalNode reads a stream over the defaults.
func (s *Stream) UnmarshalNode(n yamlfile.Node) error {
	type plain Stream // without this method
	p := plain(DefaultStream())
	err := n.Decode(&p)
	*s = Stream(p)
	return err
}

// Log is the gateway's own log, on standard error.
type Log struct {
	Level  string `yaml:"level" json:"level"`   // debug, info, warn, error
	Format string `yaml:"format" json:"format"` // auto: text on a terminal, json elsewhere; text; json
}

// SlogLevel returns the level for log/slog; what Validate refuses is info.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) != nil {
		return slog.LevelInfo
	}
	return level
}

// Default is the configuration of a gateway without a file.
func Default() *Config {
	c := &Config{
		ID:      hostID(),
		DataDir: defaultDataDir(),
		Broker:  Broker{Listen: []string{"tcp://127.0.0.1:1883"}},
		Store: Store{
			Durability: "power",
			Linger:     units.Duration(50 * time.Millisecond), // spares the flash: a thousand readings, one sync
			Profile:    "auto",
			MinFree:    64 << 20, // a full disk would kill the store
		},
		Workers: Workers{
			Max:    2, // one for what has a clean record, one for the rest
			Warm:   1, // so that a button needs no process to be started
			Idle:   units.Duration(5 * time.Minute),
			Memory: 64 << 20,
		},
		Functions: Functions{Dir: "functions"},
		Settings:  map[string]map[string]any{},
		Secrets:   map[string]Secret{},
		Devices:   map[string]Device{},
		Streams:   map[string]Stream{},
		Log:       Log{Level: "info", Format: "auto"},
	}
	c.Dir = c.DataDir
	c.resolve()
	return c
}

// DefaultStream is a stream that only a function's permission names.
func DefaultStream() Stream {
	return Stream{
		Priority: "normal",
		Retain:   Retain{Bytes: 64 << 20, Age: units.Duration(30 * units.Day), Full: "drop-oldest"},
		Batch:    Batch{Records: 100, Bytes: 128 << 10, Linger: units.Duration(time.Second)},
	}
}

// Stream returns a stream as configured, or with the defaults, and its Uplink filled in: empty only if there is no uplink.
func (c *Config) Stream(name string) Stream {
	s, ok := c.Streams[name]
	if !ok {
		s = DefaultStream()
	}
	if s.Uplink == "" && len(c.Uplinks) > 0 {
		s.Uplink = c.Uplinks[0].Name
	}
	return s
}
