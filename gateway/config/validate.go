package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Bounds. They keep a slip of the finger from becoming a gateway that swaps or never syncs.
const (
	maxID     = 64
	maxName   = 64
	maxWorker = 64
	maxSocket = 103 // bytes of the path of a Unix socket, wherever it runs
)

// checks gathers what is wrong, each with its place in the file.
type checks struct {
	root yamlfile.Node
	dir  string
	errs []error
}

// at notes an error, unless it is nil.
func (k *checks) at(err error, path ...string) {
	if err != nil {
		k.errs = append(k.errs, k.root.At(path...).Wrap(err))
	}
}

// Validate returns everything that is wrong with the meaning of c, a line for each. Kinds are the kinds of devices that there are.
func (c *Config) Validate(kinds []string) error {
	k := &checks{root: c.root, dir: c.Dir}
	k.at(checkID(c.ID), "id")
	c.checkBroker(k)
	if n := len(c.API.Socket); n > maxSocket {
		k.at(fmt.Errorf("the path %s has %d bytes, a socket's may have %d: set api.socket to a shorter one", c.API.Socket, n, maxSocket), "api", "socket")
	}
	c.checkStore(k)
	c.checkWorkers(k)
	c.checkDevices(k, kinds)
	c.checkUplinks(k)
	c.checkStreams(k)
	for _, fn := range sorted(c.Settings) {
		k.at(checkName("a function's name", fn), "settings", fn)
	}
	for _, name := range sorted(c.Secrets) {
		k.at(checkName("a secret's name", name), "secrets", name)
		if c.Secrets[name].File == "" {
			k.at(errors.New("needs a file, like {file: token.txt}"), "secrets", name)
		}
	}
	k.at(oneOf(c.Log.Level, "debug", "info", "warn", "error"), "log", "level")
	k.at(oneOf(c.Log.Format, "auto", "text", "json"), "log", "format")
	return errors.Join(k.errs...)
}

// At puts the place of a key in front of an error that is found elsewhere: file, line and path. It is nil for a nil error.
func (c *Config) At(err error, path ...string) error {
	if err == nil {
		return nil
	}
	return c.root.At(path...).Wrap(err)
}

func (c *Config) checkBroker(k *checks) {
	b := c.Broker
	if b.Embedded() {
		for _, key := range []string{"username", "password_file"} {
			if c.given("broker", key) {
				k.at(errors.New("is for another broker: set broker.url too, or add broker.users for the embedded one"), "broker", key)
			}
		}
		c.checkListen(k)
		c.checkUsers(k)
		return
	}
	if c.given("broker", "url") {
		k.at(checkURL(b.URL), "broker", "url")
	}
	for _, key := range []string{"listen", "users"} {
		if c.given("broker", key) && (len(b.Listen) > 0 || len(b.Users) > 0) {
			k.at(errors.New("is for the embedded broker, and broker.url is another: remove one of both"), "broker", key)
		}
	}
	if b.Username == "" && b.PasswordFile != "" {
		k.at(errors.New("needs broker.username with it"), "broker", "password_file")
	}
	k.file(b.PasswordFile, "broker", "password_file")
	k.tls(b.TLS, b.URL, "broker")
}

func (c *Config) checkListen(k *checks) {
	secure := false
	if len(c.Broker.Listen) == 0 {
		k.at(errors.New("is empty, and nobody could connect: write [\"tcp://127.0.0.1:1883\"], or leave it out"), "broker", "listen")
	}
	for i, l := range c.Broker.Listen {
		path := []string{"broker", "listen", fmt.Sprint(i)}
		u, err := url.Parse(l)
		switch {
		case err == nil && u.Scheme == "unix" && u.Host == "" && u.Path != "":
			if n := len(u.Path); n > maxSocket {
				k.at(fmt.Errorf("the path has %d bytes, a socket's may have %d", n, maxSocket), path...)
			}
			continue
		case err != nil || (u.Scheme != "tcp" && u.Scheme != "tls") || u.Hostname() == "" || u.Port() == "" || u.Path != "":
			k.at(fmt.Errorf("%q is nowhere to listen: write tcp://127.0.0.1:1883, tls://0.0.0.0:8883 or unix:///run/perigee/mqtt.sock", l), path...)
			continue
		}
		k.at(checkPort(u, 0), path...) // 0: any that is free
		if !loopback(u.Hostname()) && len(c.Broker.Users) == 0 {
			k.at(fmt.Errorf("%s is open to the network and there are no users: add broker.users, or listen on %s://127.0.0.1:%s", l, u.Scheme, u.Port()), path...)
		}
		if u.Scheme == "tls" {
			secure = true
			if c.Broker.TLS.Cert == "" || c.Broker.TLS.Key == "" {
				k.at(fmt.Errorf("%s needs a certificate: set broker.tls.cert and broker.tls.key", l), path...)
			}
		}
	}
	if c.Broker.TLS != (TLS{}) && !secure {
		k.at(errors.New("no listener uses it: add one that begins with tls:// to broker.listen"), "broker", "tls")
	}
	k.tlsFiles(c.Broker.TLS, "broker", "tls")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkUsers(k *checks) {
	for _, name := range sorted(c.Broker.Users) {
		u, path := c.Broker.Users[name], []string{"broker", "users", name}
		if name == "" {
			k.at(errors.New("a user needs a name"), path...)
		}
		if u.PasswordFile == "" {
			k.at(errors.New("needs a password_file"), path...)
		}
		k.file(u.PasswordFile, append(path, "password_file")...)
		for key, list := range map[string][]string{"publish": u.Publish, "subscribe": u.Subscribe} {
			for i, f := range list {
				k.at(topic.CheckFilter(f), append(path, key, fmt.Sprint(i))...)
			}
		}
	}
}

func (c *Config) checkStore(k *checks) {
	k.at(oneOf(c.Store.Durability, "power", "crash"), "store", "durability")
	k.at(oneOf(c.Store.Profile, "auto", "small", "normal"), "store", "profile")
	k.at(atMost(c.Store.Linger, 10*time.Second), "store", "linger")
	k.at(sizeIn(c.Store.MinFree, 16<<20, 1<<40), "store", "min_free")
	if c.Store.KeyFile == "" && c.Store.OldKeyFile != "" {
		k.at(errors.New("needs the new key with it: set store.key_file"), "store", "old_key_file")
		return
	}
	k.key(c.Store.KeyFile, "store", "key_file")
	k.key(c.Store.OldKeyFile, "store", "old_key_file")
}

func (c *Config) checkWorkers(k *checks) {
	w := c.Workers
	k.at(countIn(w.Max, 1, maxWorker), "workers", "max")
	if w.Warm < 0 || w.Warm > w.Max && w.Max >= 1 {
		k.at(fmt.Errorf("is %d, it should be from 0 to workers.max, which is %d", w.Warm, w.Max), "workers", "warm")
	}
	k.at(atLeast(w.Idle, time.Second), "workers", "idle")
	k.at(sizeIn(w.Memory, 32<<20, 4<<30), "workers", "memory")
}

func (c *Config) checkDevices(k *checks, kinds []string) {
	for _, name := range sorted(c.Devices) {
		d := c.Devices[name]
		k.at(checkName("a device's name", name), "devices", name)
		if slices.Contains(kinds, d.Kind) {
			continue
		}
		list := strings.Join(kinds, ", ")
		switch near := yamlfile.Nearest(d.Kind, kinds); {
		case slices.Contains(futureKinds(), d.Kind):
			k.at(fmt.Errorf("devices of kind %s are not in this version; the kinds are: %s", d.Kind, list), "devices", name, d.Kind)
		case near != "":
			k.at(fmt.Errorf("there is no kind %q; did you mean %q? The kinds are: %s", d.Kind, near, list), "devices", name, d.Kind)
		default:
			k.at(fmt.Errorf("there is no kind %q; the kinds are: %s", d.Kind, list), "devices", name, d.Kind)
		}
	}
}

func (c *Config) checkUplinks(k *checks) {
	for _, u := range c.Uplinks {
		k.at(checkName("an uplink's name", u.Name), "uplinks", u.Name)
		path := []string{"uplinks", u.Name, u.Kind}
		if !c.given(path...) {
			continue // its form is wrong, which was said
		}
		if u.MQTT.URL == "" {
			k.at(errors.New(`needs a url, like "mqtts://broker.example.com:8883"`), path...)
			continue
		}
		k.at(checkURL(u.MQTT.URL), append(path, "url")...)
		if u.MQTT.Username == "" && u.MQTT.PasswordFile != "" {
			k.at(errors.New("needs a username with it"), append(path, "password_file")...)
		}
		k.file(u.MQTT.PasswordFile, append(path, "password_file")...)
		k.tls(u.MQTT.TLS, u.MQTT.URL, path...)
	}
}

func (c *Config) checkStreams(k *checks) {
	for _, name := range sorted(c.Streams) {
		s := c.Streams[name]
		at := func(err error, path ...string) { k.at(err, append([]string{"streams", name}, path...)...) }
		at(checkName("a stream's name", name))
		if s.Uplink != "" && !slices.ContainsFunc(c.Uplinks, func(u Uplink) bool { return u.Name == s.Uplink }) {
			at(fmt.Errorf("there is no uplink %q%s", s.Uplink, c.uplinkList()), "uplink")
		}
		at(oneOf(s.Priority, "high", "normal", "low"), "priority")
		at(sizeIn(s.Retain.Bytes, 64<<10, 1<<40), "retain", "bytes")
		at(atLeast(s.Retain.Age, time.Minute), "retain", "age")
		at(oneOf(s.Retain.Full, "drop-oldest", "drop-newest"), "retain", "full")
		at(countIn(s.Batch.Records, 1, 10_000), "batch", "records")
		at(sizeIn(s.Batch.Bytes, 1<<10, 1<<20), "batch", "bytes")
		at(atMost(s.Batch.Linger, time.Hour), "batch", "linger")
	}
}

func (c *Config) uplinkList() string {
	if len(c.Uplinks) == 0 {
		return "; there are none"
	}
	names := make([]string, len(c.Uplinks))
	for i, u := range c.Uplinks {
		names[i] = u.Name
	}
	return "; there are: " + strings.Join(names, ", ")
}

// file notes a file that is not there, or is no file.
func (k *checks) file(name string, path ...string) {
	if name == "" {
		return
	}
	info, err := os.Stat(name)
	show := name
	if rel, relErr := filepath.Rel(k.dir, name); relErr == nil && filepath.IsLocal(rel) {
		show = rel // as it was written, most likely
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.at(fmt.Errorf("there is no file %s", show), path...)
	case err != nil:
		k.at(err, path...)
	case !info.Mode().IsRegular():
		k.at(fmt.Errorf("%s is not a file", show), path...)
	}
}

// tls checks the client's side of a connection to rawURL.
// key checks the file of a key.
func (k *checks) key(name string, path ...string) {
	if name != "" {
		_, err := ReadKey(name)
		k.at(err, path...)
	}
}

func (k *checks) tls(t TLS, rawURL string, path ...string) {
	path = append(slices.Clone(path), "tls")
	if t != (TLS{}) && !secureURL(rawURL) {
		k.at(errors.New("has no effect on this url: write mqtts://"), path...)
	}
	k.tlsFiles(t, path...)
}

func (k *checks) tlsFiles(t TLS, path ...string) {
	if (t.Cert == "") != (t.Key == "") {
		k.at(errors.New("cert and key belong together: set both or none"), path...)
	}
	k.file(t.CA, append(slices.Clone(path), "ca")...)
	k.file(t.Cert, append(slices.Clone(path), "cert")...)
	k.file(t.Key, append(slices.Clone(path), "key")...)
}

func secureURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && slices.Contains([]string{"mqtts", "ssl", "tls"}, u.Scheme)
}

// checkURL checks a broker's URL. It is no place for a password, and its errors do not repeat one.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is not a broker's URL: write tcp://host:1883 or mqtts://host:8883")
	case !slices.Contains([]string{"tcp", "mqtt", "mqtts", "ssl", "tls"}, u.Scheme):
		return fmt.Errorf("begins with %s://, which this version does not speak: write tcp://, mqtt:// or mqtts://", u.Scheme)
	case u.User != nil:
		return errors.New("has a user in it, and URLs are shown: write username and password_file in the configuration instead")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has something after the host: write the host and the port only")
	}
	return checkPort(u, 1)
}

// checkPort refuses a port that there is not. None at all is the scheme's own.
func checkPort(u *url.URL, low int) error {
	if u.Port() == "" {
		return nil
	}
	if n, err := strconv.Atoi(u.Port()); err != nil || n < low || n > 65535 {
		return fmt.Errorf("has the port %s, it should be from 1 to 65535", u.Port())
	}
	return nil
}

// checkID holds what is allowed in one level of an MQTT topic, and leaves @ to groups.
// inID says whether an id may have c: what may stand in a record's identity (sync/record).
func inID(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c)
}

func checkID(id string) error {
	if id == "" {
		return errors.New("is empty; leave it out for the host's name")
	}
	if len(id) > maxID {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(id), maxID)
	}
	for _, c := range id {
		if !inID(c) {
			return fmt.Errorf("%q is part of MQTT topics and of every record's identity: it may have only letters a-z and A-Z, digits, '.', '_' and '-'", id)
		}
	}
	return nil
}

// checkName holds the names of devices, uplinks, streams and functions: they stand in topics, in Lua and on command lines.
func checkName(what, name string) error {
	ok := func(i int, r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || i > 0 && (r == '-' || r == '_' || r == '.')
	}
	good := name != "" && len(name) <= maxName
	for i, r := range name {
		good = good && ok(i, r)
	}
	if !good {
		return fmt.Errorf("%s has letters, digits, -, _ and . and begins with a letter or digit, at most %d of them", what, maxName)
	}
	return nil
}

func oneOf(v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return fmt.Errorf("is %q, it should be %s", v, orList(allowed))
}

func orList(l []string) string {
	if len(l) == 1 {
		return l[0]
	}
	return strings.Join(l[:len(l)-1], ", ") + " or " + l[len(l)-1]
}

func countIn(n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("is %d, it should be from %d to %d", n, low, high)
	}
	return nil
}

func sizeIn(n, low, high units.Size) error {
	if n < low || n > high {
		return fmt.Errorf("is %s, it should be from %s to %s", n, low, high)
	}
	return nil
}

func atLeast(d units.Duration, low time.Duration) error {
	if time.Duration(d) < low {
		return fmt.Errorf("is %s, it should be at least %s", d, units.Duration(low))
	}
	return nil
}

func atMost(d units.Duration, high time.Duration) error {
	if time.Duration(d) > high {
		return fmt.Errorf("is %s, it should be at most %s", d, units.Duration(high))
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
