package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/configs/examples"
	"github.com/perigee-iot/perigee/gateway/config"
)

// workspace is the demo's directory: what a person may look at and change. It stays when the demo ends, and is used again.
//
//	gateway.yaml   the gateway's configuration
//	functions/     one folder a function
//	data/          what the gateway keeps
//	gateway.log    what the gateway says, gateway.log.1 what it said before
type workspace struct {
	dir    string // absolute
	config string // gateway.yaml
	funcs  string // functions/
	data   string // data/
	socket string // of the control API
	broker string // host:port of the gateway's broker
	uplink string // host:port where the gateway looks for its cloud
	lock   *os.File
}

// configText is the gateway's configuration. The two addresses are filled in.
const configText = `# The demo's gateway. What you change here holds at once for devices, streams and settings, and after a restart for the
# rest; configs/gateway.yaml explains every key. Ports that are taken are replaced when the demo starts.
id: demo
data_dir: data
broker:
  listen: ["tcp://%s"]
devices:
  cellar: {sim: {wave: sine, min: 18, max: 36, period: 40s, every: 500ms, noise: 0.1, cooled_by: fan, cooling: 8}}
  attic:  {mqtt: {topic: zigbee2mqtt/attic}}
  hall:   {mqtt: {topic: zigbee2mqtt/hall}}
  box:    {host: {every: 5s}}
  fan:    {sim: {switch: off}}
  lamp:   {sim: {switch: off}}
  button: {sim: {button: {every: 20s}}}
uplinks:
  cloud: {mqtt: {url: "tcp://%s"}}
streams:
  alerts: {priority: high, batch: {linger: 100ms}}
  proof:  {batch: {records: 500, linger: 250ms}}
log: {level: info, format: text}
`

// openWorkspace makes the directory or takes the one there is. An empty dir means ./perigee-demo, or the user's state directory if that
// cannot be made.
func openWorkspace(dir string) (*workspace, error) {
	dir, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	w := &workspace{
		dir: dir, config: filepath.Join(dir, "gateway.yaml"), funcs: filepath.Join(dir, "functions"), data: filepath.Join(dir, "data"),
	}
	if w.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := w.fill(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close lets another demo have the directory.
func (w *workspace) Close() { w.lock.Close() }

func makeDir(dir string) (string, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("make the demo's directory: %w; choose another one with --dir", err)
		}
		return filepath.Abs(dir)
	}
	here, err := filepath.Abs("perigee-demo")
	if err == nil {
		if err = os.MkdirAll(here, 0o755); err == nil && unix.Access(here, unix.W_OK) == nil {
			return here, nil
		}
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a directory for the demo: %w; choose one with --dir", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	other := filepath.Join(state, "perigee", "demo")
	if err := os.MkdirAll(other, 0o755); err != nil {
		return "", fmt.Errorf("make the demo's directory: %w; choose another one with --dir", err)
	}
	return other, nil
}

// lockDir keeps two demos out of one directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("use the demo's directory: %w; choose another one with --dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another demo runs in %s; end it, or choose another directory with --dir", dir)
	}
	return f, nil
}

// fill writes what is missing and finds out where gateway and cloud meet.
func (w *workspace) fill() error {
	if err := os.MkdirAll(w.data, 0o700); err != nil {
		return fmt.Errorf("make the gateway's directory: %w", err)
	}
	if err := w.copyExamples(); err != nil {
		return err
	}
	if _, err := os.Stat(w.config); errors.Is(err, fs.ErrNotExist) {
		if err := w.writeConfig(); err != nil {
			return err
		}
	}
	if err := w.readConfig(); err != nil {
		return err
	}
	w.socket = filepath.Join(w.data, "perigee.sock")
	if len(w.socket) > 100 { // the kernel's addresses of sockets are short
		w.socket = filepath.Join(os.TempDir(), fmt.Sprintf("perigee-demo-%d.sock", os.Getpid()))
	}
	return nil
}

// copyExamples copies the demo's functions, each unless its folder is there already. A functions directory that somebody has
// emptied on purpose stays as it is.
func (w *workspace) copyExamples() error {
	if _, err := os.Stat(w.funcs); err == nil {
		return nil
	}
	// All or nothing: an interrupted copy must not look like a choice.
	part := w.funcs + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("clear a broken copy of the examples: %w", err)
	}
	for _, name := range []string{examples.Overheat, examples.Climate, examples.Lamp, examples.Health, examples.Proof} {
		sub, err := fs.Sub(examples.Files(), name)
		if err == nil {
			err = os.CopyFS(filepath.Join(part, name), sub)
		}
		if err != nil {
			return fmt.Errorf("copy the example %s: %w", name, err)
		}
	}
	if err := makeWritable(part); err != nil {
		return err
	}
	return os.Rename(part, w.funcs)
}

// makeWritable undoes the read-only modes of embedded files.
func makeWritable(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(p, 0o644)
	})
}

func (w *workspace) writeConfig() error {
	var addrs [2]string
	for i := range addrs {
		a, err := freeAddr()
		if err != nil {
			return err
		}
		addrs[i] = a
	}
	return writeFile(w.config, fmt.Appendf(nil, configText, addrs[0], addrs[1]))
}

// readConfig finds the two addresses in gateway.yaml, which is the user's to change, and puts free ones in the place of those
// that are taken.
func (w *workspace) readConfig() error {
	cfg, err := config.Load(w.config, config.Overrides{})
	if err != nil {
		return fmt.Errorf("%w; correct it, or remove the file for a new one", err)
	}
	data, err := os.ReadFile(w.config)
	if err != nil {
		return err
	}
	text := data
	if w.broker, text, err = w.settle(text, cfg.Broker.Listen, "broker.listen"); err != nil {
		return err
	}
	urls := []string{}
	for _, u := range cfg.Uplinks {
		urls = append(urls, u.MQTT.URL)
	}
	if w.uplink, text, err = w.settle(text, urls, "uplinks"); err != nil {
		return err
	}
	if bytes.Equal(text, data) {
		return nil
	}
	return writeFile(w.config, text)
}

// settle returns the address of the first tcp:// URL, or a free one in its place if it is taken, and the configuration with it.
func (w *workspace) settle(text []byte, urls []string, key string) (string, []byte, error) {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "tcp" || u.Port() == "" {
			continue
		}
		if isFree(u.Host) {
			return u.Host, text, nil
		}
		free, err := freeAddr()
		if err != nil {
			return "", nil, err
		}
		return free, bytes.ReplaceAll(text, []byte("tcp://"+u.Host), []byte("tcp://"+free)), nil
	}
	return "", nil, fmt.Errorf("%s: the demo needs a tcp:// address with a port under %s; remove the file for a new one", w.config, key)
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port on this machine: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

func isFree(addr string) bool {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

// writeFile replaces a file as a whole.
func writeFile(name string, data []byte) error {
	tmp := name + ".part"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// shorten names a path in the directory from where the user stands, if that is shorter.
func shorten(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(rel, "..") || len(rel) >= len(path) {
		return path
	}
	return rel
}
