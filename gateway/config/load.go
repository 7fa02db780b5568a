package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Overrides are the command line's values; an empty one says nothing. Relative paths start in the working directory.
type Overrides struct {
	DataDir  string // --data-dir
	Socket   string // --socket
	Broker   string // --broker: another broker's URL, or "embedded"
	LogLevel string // --log-level
}

// systemFile is the configuration of a gateway that is installed.
const systemFile = "/etc/perigee/gateway.yaml"

// Find returns the configuration file that is used when none is named: ./gateway.yaml, else /etc/perigee/gateway.yaml, else "".
func Find() string {
	for _, f := range []string{"gateway.yaml", systemFile} {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			return f
		}
	}
	return ""
}

// Load reads file over the defaults; with an empty name, the file that Find finds or none. It checks the form. The meaning is Validate's.
func Load(file string, o Overrides) (*Config, error) {
	c, form, err := gather(file, o)
	if err = errors.Join(err, form); err != nil {
		return nil, err
	}
	return c, nil
}

// LoadValid loads and validates. It says everything that is wrong at once: where the form of one value is wrong, the others are
// looked at nevertheless. More looks at what Validate does not know; nil for nothing.
func LoadValid(file string, o Overrides, kinds []string, more func(*Config) error) (*Config, error) {
	c, form, err := gather(file, o)
	if err != nil {
		return nil, err
	}
	var errs []error
	said := map[[2]int]bool{} // places: what could not be read is not judged as well
	for _, step := range []func() error{
		func() error { return form },
		func() error { return c.Validate(kinds) },
		func() error {
			if more == nil {
				return nil
			}
			return more(c)
		},
	} {
		found := flat(step())
		found = slices.DeleteFunc(found, func(err error) bool { at, ok := place(err); return ok && said[at] })
		for _, err := range found {
			if at, ok := place(err); ok {
				said[at] = true
			}
		}
		errs = append(errs, found...)
	}
	slices.SortStableFunc(errs, func(a, b error) int { // as they stand in the file
		x, _ := place(a)
		y, _ := place(b)
		return slices.Compare(x[:], y[:])
	})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// place is the line and column of an error, if it has them.
func place(err error) (at [2]int, ok bool) {
	var e *yamlfile.Error
	if !errors.As(err, &e) {
		return at, false
	}
	return [2]int{e.Line, e.Col}, true
}

// flat lists the errors that were joined into one.
func flat(err error) (out []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			out = append(out, flat(e)...)
		}
		return out
	}
	if err != nil {
		out = append(out, err)
	}
	return out
}

// gather returns what could be read, and what is wrong with the form of the rest. With err there is nothing.
func gather(file string, o Overrides) (c *Config, form, err error) {
	if file == "" {
		file = Find()
	}
	c = Default()
	if file != "" {
		if form, err = c.read(file); err != nil {
			return nil, nil, err
		}
	}
	if err := c.override(o); err != nil {
		return nil, nil, err
	}
	if c.File == "" {
		c.Dir = c.DataDir
	}
	c.resolve()
	return c, form, nil
}

// read decodes a file over the defaults. Form is what is wrong with single values.
func (c *Config) read(file string) (form, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the configuration file %s does not exist", file)
	}
	if errors.Is(err, syscall.EISDIR) {
		return nil, fmt.Errorf("the configuration file %s is a directory: name the file in it, such as %s", file, filepath.Join(file, "gateway.yaml"))
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration file: %w", err)
	}
	root, err := yamlfile.Parse(file, data)
	if err != nil {
		return nil, err
	}
	if err := refuseFuture(root); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("the configuration file %s: %w", file, err)
	}
	c.API.Socket, c.Functions.Dir = "", "functions" // relative to what the file says
	form = root.Decode(c)
	c.root, c.File, c.Dir = root, abs, filepath.Dir(abs)
	if !c.given("workers", "warm") {
		c.Workers.Warm = max(min(c.Workers.Warm, c.Workers.Max), 0)
	}
	if _, ok := root.At("broker").Child("url"); ok && c.Broker.URL != "" {
		if _, both := root.At("broker").Child("listen"); !both {
			c.Broker.Listen = nil // the default's; both in the file is for Validate
		}
	}
	return errors.Join(form, c.settings()), nil
}

// settings makes every number a float64, as functions have them, and refuses what is not a scalar.
func (c *Config) settings() error {
	var errs []error
	for fn, values := range c.Settings {
		for name, v := range values {
			switch v := v.(type) {
			case int64:
				values[name] = float64(v)
			case float64, string, bool:
			default:
				errs = append(errs, c.root.At("settings", fn, name).Errorf("must be a number, text, true or false"))
			}
		}
	}
	return errors.Join(errs...)
}

// override lets the command line win.
func (c *Config) override(o Overrides) error {
	for _, p := range []struct {
		flag, value string
		into        *string
	}{{"--data-dir", o.DataDir, &c.DataDir}, {"--socket", o.Socket, &c.API.Socket}} {
		if p.value == "" {
			continue
		}
		abs, err := filepath.Abs(p.value)
		if err != nil {
			return fmt.Errorf("%s %s: %w", p.flag, p.value, err)
		}
		*p.into = abs
		if p.flag == "--data-dir" && !c.given("api", "socket") {
			c.API.Socket = ""
		}
		if p.flag == "--data-dir" && c.File == "" {
			c.Functions.Dir = "functions"
		}
	}
	switch o.Broker {
	case "":
	case "embedded":
		b := Default().Broker
		if c.Broker.Embedded() {
			b = c.Broker
		}
		c.Broker = b
	default:
		if err := checkURL(o.Broker); err != nil {
			return fmt.Errorf("--broker: %w", err)
		}
		b := Broker{URL: o.Broker}
		if c.Broker.URL == o.Broker {
			b = c.Broker
			b.Listen, b.Users = nil, nil
		}
		c.Broker = b
	}
	if o.LogLevel != "" {
		if err := oneOf(o.LogLevel, "debug", "info", "warn", "error"); err != nil {
			return fmt.Errorf("--log-level: %w", err)
		}
		c.Log.Level = o.LogLevel
	}
	return nil
}

// given says whether the file has a key with a value.
func (c *Config) given(path ...string) bool {
	n := c.root
	for _, step := range path {
		var ok bool
		if n, ok = n.Child(step); !ok {
			return false
		}
	}
	return n.Kind() != yamlfile.Null
}

// resolve makes every path absolute and fills in what follows from another key.
func (c *Config) resolve() {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(c.Dir, *p)
		}
	}
	tls := func(t *TLS) { abs(&t.CA); abs(&t.Cert); abs(&t.Key) }
	abs(&c.DataDir)
	if c.API.Socket == "" {
		c.API.Socket = filepath.Join(c.DataDir, "perigee.sock")
	}
	abs(&c.API.Socket)
	abs(&c.Functions.Dir)
	abs(&c.Store.KeyFile)
	abs(&c.Store.OldKeyFile)
	abs(&c.Broker.PasswordFile)
	tls(&c.Broker.TLS)
	for name, u := range c.Broker.Users {
		abs(&u.PasswordFile)
		c.Broker.Users[name] = u
	}
	for name, s := range c.Secrets {
		abs(&s.File)
		c.Secrets[name] = s
	}
	for i := range c.Uplinks {
		abs(&c.Uplinks[i].MQTT.PasswordFile)
		tls(&c.Uplinks[i].MQTT.TLS)
	}
}

// SystemDataDir is the data directory of a gateway that runs as root.
const SystemDataDir = "/var/lib/perigee"

// defaultDataDir is SystemDataDir for root, and the user's state directory for others.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return SystemDataDir
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "perigee")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("perigee-%d", os.Getuid()))
	}
	return filepath.Join(home, ".local", "state", "perigee")
}

// hostID is the host's name with everything replaced that an id may not have.
func hostID() string {
	name, err := os.Hostname()
	if err != nil {
		return "gateway"
	}
	return sanitizeID(name)
}

func sanitizeID(name string) string {
	id := strings.Map(func(r rune) rune {
		if !inID(r) {
			return '-'
		}
		return r
	}, name)
	id = strings.Trim(id, "-")
	id = id[:min(len(id), maxID)]
	if checkID(id) != nil {
		return "gateway"
	}
	return id
}
