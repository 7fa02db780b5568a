package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/backup"
)

// RestoreOptions are what "perigee restore" was told.
type RestoreOptions struct {
	File       io.ReadSeeker
	KeyFile    string // opens the backup if the gateway's key does not
	Replace    bool
	OnProgress func(done, of int64) // bytes
}

// Restored is what a restore did.
type Restored struct {
	backup.Summary
	NewEpoch string
	Replaced string // where the store that there was is now
}

// saved is what both commands say of a file as JSON.
type saved struct {
	File      string           `json:"file"`
	Gateway   string           `json:"gateway"`
	Version   string           `json:"version"`
	Created   time.Time        `json:"created"`
	Epoch     string           `json:"epoch"`
	Encrypted bool             `json:"encrypted"`
	Size      int64            `json:"size"` // bytes
	Keys      int64            `json:"keys"`
	Spaces    map[string]int64 `json:"spaces"` // keys of each

	Restored *restoredJSON `json:"restored,omitempty"`
}

type restoredJSON struct {
	DataDir  string `json:"data_dir"`
	Epoch    string `json:"epoch"`
	Replaced string `json:"replaced,omitempty"`
}

func describe(file string, s backup.Summary) saved {
	return saved{File: file, Gateway: s.Gateway, Version: s.Version, Created: s.Created, Epoch: s.Epoch, Encrypted: s.Sealed(), Size: s.Size, Keys: s.Keys, Spaces: s.Spaces}
}

func backupCommand() *command {
	return &command{
		name: "backup", usage: "FILE", brief: "write all that the gateway keeps into one file", min: 1, max: 1,
		text: `The gateway runs on meanwhile; the file has everything of one moment. If no gateway runs, its data directory is read. What was
written is read back and checked before it takes the place of FILE. "-" is standard output. With store.key_file in the configuration the
file is encrypted with that key, otherwise it is not: it holds the state of functions and what waits to be sent. The configuration and
the directory of functions are not in it.`,
		examples: []string{"perigee backup /mnt/usb/gw-01.backup", "perigee backup - | ssh nas 'cat >gw-01.backup'"},
		run:      saveBackup,
	}
}

func saveBackup(c *call) error {
	file := c.args[0]
	if file == "-" && c.json() {
		return usagef("standard output can have the backup or --json, not both")
	}
	p := c.progress("saved")
	if file == "-" {
		sum, err := c.receive(c.out, p)
		if err == nil {
			fmt.Fprintf(c.p.opts.Stderr, "%s\n", writtenLine("standard output", sum))
		}
		return err
	}
	sum, err := c.saveTo(file, p)
	if err != nil {
		return fmt.Errorf("no backup was made: %w", err)
	}
	if c.json() {
		return c.out.json(describe(file, sum))
	}
	c.out.line("%s", writtenLine(file, sum))
	return nil
}

func writtenLine(file string, s backup.Summary) string {
	how := ""
	if s.Sealed() {
		how = ", encrypted"
	}
	return fmt.Sprintf("%s has all of %s: %s in %s%s; read back and right", file, s.Gateway, plural(s.Keys, "key"), size(s.Size), how)
}

// saveTo writes a file beside FILE, reads it back, and puts it in its place.
func (c *call) saveTo(name string, p *progress) (sum backup.Summary, err error) {
	partial := name + ".partial"
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return sum, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(partial) //nolint:errcheck // it is named after what it is
		}
	}()
	if sum, err = c.receive(f, p); err != nil {
		return sum, err
	}
	if err := f.Sync(); err != nil {
		return sum, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return sum, err
	}
	if _, err := backup.Check(f); err != nil {
		return sum, fmt.Errorf("what was written is not what is read from %s: %w", partial, err)
	}
	if err := os.Rename(partial, name); err != nil {
		return sum, err
	}
	return sum, syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// receive writes a backup to w, from the gateway or, if none runs, from its data directory, and checks it on its way.
func (c *call) receive(w io.Writer, p *progress) (backup.Summary, error) {
	defer p.done()
	in, out := io.Pipe()
	type result struct {
		sum backup.Summary
		err error
	}
	checked := make(chan result, 1)
	go func() {
		sum, err := backup.Check(in)
		in.CloseWithError(orElse(err, io.ErrClosedPipe)) // a writer behind a bad end must not wait
		checked <- result{sum, err}
	}()
	err := c.fetch(io.MultiWriter(w, p, out), func() bool { return p.bytes > 0 })
	out.CloseWithError(err) // nil: the end
	r := <-checked
	return r.sum, orElse(err, r.err)
}

// fetch asks the gateway for a backup, or the store if there is no gateway. One that goes away once it has begun is an error.
func (c *call) fetch(w io.Writer, begun func() bool) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	err = gw.Backup(c.ctx, w)
	if !api.IsCode(err, api.CodeNoGateway) || begun() || c.String("socket") != "" || c.p.opts.Backup == nil {
		return err
	}
	conf, loadErr := config.Load(c.String("config"), config.Overrides{DataDir: c.String("data-dir")})
	if loadErr != nil {
		return usagef("%s", loadErr)
	}
	if !exists(conf.DataDir) {
		return err
	}
	return c.p.opts.Backup(c.ctx, conf, w)
}

func restoreCommand() *command {
	return &command{
		name: "restore", usage: "FILE", brief: "make the gateway's store from a backup", local: true, min: 1, max: 1,
		text: `The gateway must not run. The whole file is checked before anything is touched, and the data directory changes in one step at the end. A
store that is there stays, unless --replace sets it aside (to "replaced" in the data directory).

What was waiting when the backup was made waits again: events run, actions are carried out, records are sent, each under the identity that
it had, so that receivers drop what they have. What came later is lost. Streams begin a new epoch. One gateway only may go on from a
backup: where two have the same id, receivers report a clash.`,
		examples: []string{
			"perigee restore gw-01.backup --dry-run",
			"perigee restore gw-01.backup --config /etc/perigee/gateway.yaml",
			"perigee restore gw-01.backup --replace --key-file old.key",
		},
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only check the file, and say what is in it"},
			&cli.BoolFlag{Name: "replace", Usage: "set a store that is there aside"},
			&cli.StringFlag{Name: "key-file", Usage: "the `FILE` with the key of the backup, if it is not the gateway's (store.key_file)"},
			&cli.StringFlag{Name: "config", Usage: "the gateway's configuration `FILE` (default: ./gateway.yaml, else /etc/perigee/gateway.yaml)"},
			&cli.StringFlag{Name: "data-dir", Usage: "the gateway's data `DIR`"},
		},
		run: restoreBackup,
	}
}

func restoreBackup(c *call) error {
	name := c.args[0]
	f, err := os.Open(name)
	if err != nil {
		return usagef("%s", err)
	}
	defer f.Close()
	if c.Bool("dry-run") {
		sum, err := backup.Check(f)
		if err != nil {
			return wrongFile(name, err)
		}
		if c.json() {
			return c.out.json(describe(name, sum))
		}
		writeSummary(c.out, name, sum)
		return nil
	}
	conf, err := config.Load(c.String("config"), config.Overrides{DataDir: c.String("data-dir")})
	if err != nil {
		return usagef("%s", err)
	}
	if c.p.opts.Restore == nil {
		return usagef("this program has no gateway in it")
	}
	p := c.progress("restored")
	got, err := c.p.opts.Restore(c.ctx, conf, RestoreOptions{File: f, KeyFile: c.String("key-file"), Replace: c.Bool("replace"), OnProgress: p.of})
	p.done()
	if err != nil {
		return wrongFile(name, err)
	}
	if c.json() {
		s := describe(name, got.Summary)
		s.Restored = &restoredJSON{DataDir: conf.DataDir, Epoch: got.NewEpoch, Replaced: got.Replaced}
		return c.out.json(s)
	}
	c.out.line("%s is restored from %s of %s: %s", conf.DataDir, name, clock(got.Created), plural(got.Keys, "key"))
	if got.Replaced != "" {
		c.out.line("the store that was there is in %s: remove it when all is well", got.Replaced)
	}
	if got.Gateway != conf.ID {
		c.out.line("%s it is a backup of %s, and the configuration says %s: only one of them may go on from it", c.out.warn("!"), safe(got.Gateway, 64), conf.ID)
	}
	return nil
}

// wrongFile adds to errors of a file what can be done.
func wrongFile(name string, err error) error {
	switch {
	case errors.Is(err, backup.ErrKey):
		return fmt.Errorf("%s: %w\nhint: name the file with its key: store.key_file of the gateway that made it, or --key-file", name, err)
	case errors.Is(err, backup.ErrDamaged):
		return fmt.Errorf("%s: %w\nhint: nothing was changed; take another backup", name, err)
	case errors.Is(err, backup.ErrNotBackup), errors.Is(err, backup.ErrNewer):
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// writeSummary says what is in a backup.
func writeSummary(out *printer, name string, s backup.Summary) {
	row := func(name, format string, args ...any) { out.line("%-9s %s", name, fmt.Sprintf(format, args...)) }
	out.line("%s is whole", out.bold(name))
	row("gateway", "%s, version %s", safe(s.Gateway, 64), safe(s.Version, 64))
	row("made", "%s", s.Created.Local().Format("2006-01-02 15:04:05"))
	row("epoch", "%s", safe(s.Epoch, 32))
	if s.Sealed() {
		row("encrypted", "yes")
	} else {
		row("encrypted", "no")
	}
	row("size", "%s, %s", size(s.Size), plural(s.Keys, "key"))
	var parts []string
	for space, n := range s.Spaces {
		parts = append(parts, fmt.Sprintf("%s %d", safe(space, 32), n))
	}
	slices.Sort(parts)
	row("keys", "%s", strings.Join(parts, ", "))
}

// progress shows on a terminal how far something is.
type progress struct {
	out   io.Writer // nil: nobody looks
	what  string
	bytes int64
	shown time.Time
}

func (c *call) progress(what string) *progress {
	p := &progress{what: what, shown: time.Now()}
	if f, ok := c.p.opts.Stderr.(*os.File); ok && isatty.IsTerminal(f.Fd()) && !c.json() {
		p.out = f
	}
	return p
}

// Write counts.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	p.show(size(p.bytes))
	return len(b), nil
}

func (p *progress) of(done, all int64) {
	p.show(fmt.Sprintf("%d %%", done*100/max(all, 1)))
}

// show writes at most ten times a second.
func (p *progress) show(how string) {
	if p.out != nil && time.Since(p.shown) > 100*time.Millisecond {
		p.shown = time.Now()
		fmt.Fprintf(p.out, "\r%s %s\x1b[K", p.what, how)
	}
}

// done takes the line away.
func (p *progress) done() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
