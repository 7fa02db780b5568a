package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/gateway/api"
)

const (
	settle    = 150 * time.Millisecond // editors write a file in several steps
	reconnect = time.Second            // between tries while there is no gateway
)

func devCommand() *command {
	return &command{
		name: "dev", usage: "DIR", brief: "test and apply a function at every save, and follow it", min: 1, max: 1, plain: true,
		text: `DIR is the folder of one function. At each save its cases in tests/ are run, and if none fails it is applied; then the function's log and
its events follow. A gateway that ends is waited for.`,
		examples: []string{"perigee new overheat && perigee dev overheat"},
		run: func(c *call) error {
			dir := filepath.Clean(c.args[0])
			if _, err := readBundle(dir); api.IsCode(err, api.CodeNotFound) {
				return err
			}
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			watch, err := newWatch(dir)
			if err != nil {
				return err
			}
			d := &dev{dir: dir, gw: gw, out: c.out, watch: watch, open: c.p.opts.Stage}
			return c.followed(d.run(c.ctx))
		},
	}
}

// dev is one session: the loop in run owns everything but out, which the followers share under mu.
type dev struct {
	dir   string
	gw    *api.Client
	watch *fsnotify.Watcher
	open  func() (Stage, error)
	stage Stage // nil until there are cases to run

	mu  sync.Mutex // guards out
	out *printer

	tested  string // digest of what has passed its cases
	applied string // digest of what the gateway has
	name    string // of the function that is followed
	stop    func() // ends the followers and waits for them
	away    bool   // the gateway was missed, and that was said
}

// run applies at the start and after each save until ctx ends. Lost tells it that a follower has lost the gateway.
func (d *dev) run(ctx context.Context) error {
	defer func() { _ = d.watch.Close() }()
	defer func() {
		if d.stage != nil {
			d.stage.Close()
		}
	}()
	d.stop = func() {}
	defer func() { d.stop() }()
	lost := make(chan struct{}, 1)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-d.watch.Events:
			if !ok {
				return errors.New("the folder is no longer watched")
			}
			if e.Has(fsnotify.Chmod) && e.Op == fsnotify.Chmod || ignoredFile(e.Name) {
				continue
			}
			if e.Has(fsnotify.Create) {
				_ = addFolders(d.watch, e.Name) // a folder may be gone again already
			}
			timer.Reset(settle)
		case err := <-d.watch.Errors:
			if err != nil {
				d.say("watching %s: %s", d.dir, err)
			}
		case <-lost:
			d.applied = ""
			timer.Reset(reconnect)
		case <-timer.C:
			if !d.apply(ctx, lost) {
				timer.Reset(reconnect)
			}
		}
	}
}

// apply sends the folder if it has changed and says how that went. It returns false if there is no gateway to send it to.
func (d *dev) apply(ctx context.Context, lost chan<- struct{}) bool {
	req, err := readBundle(d.dir)
	if err != nil {
		d.applied = ""
		d.say("%s %s", d.out.bad("not applied:"), oneLine(err))
		return true
	}
	digest := req.Name + " " + bundle.Digest(req.Files)
	if digest == d.applied {
		return true
	}
	if !d.passes(ctx, req, digest) {
		d.applied = digest // until the next save
		return true
	}
	start := time.Now()
	r, err := d.gw.Apply(ctx, req)
	if api.IsCode(err, api.CodeNoGateway) || api.IsCode(err, api.CodeUnavailable) {
		if !d.away {
			d.say("%s %s", d.out.warn("waiting:"), oneLine(err))
		}
		d.away = true
		return false
	}
	d.away = false
	if ctx.Err() != nil {
		return true
	}
	d.applied = digest
	if err != nil {
		d.say("%s %s", d.out.bad("not applied:"), oneLine(err))
		return true
	}
	d.say("%s (%s)", applied(d.out, r, false), span(time.Since(start)))
	for _, w := range r.Warnings {
		d.say("  %s %s", d.out.warn("warning:"), safe(w, 0))
	}
	d.follow(ctx, r.Name, lost)
	return true
}

// passes runs the cases of what was saved, and says so if there are any.
func (d *dev) passes(ctx context.Context, req *api.ApplyRequest, digest string) bool {
	if digest == d.tested {
		return true
	}
	var text bytes.Buffer
	t := &tester{out: &printer{Writer: &text, colour: d.out.colour}, brief: true}
	b, err := bundle.FromFiles(req.Files, req.Name)
	if err == nil && len(cases.Files(b)) == 0 {
		return true
	}
	if err == nil && d.stage == nil {
		d.stage, err = d.open()
	}
	if err == nil {
		t.stage = d.stage
		err = t.bundle(ctx, b, d.dir)
	}
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		d.say("%s %s", d.out.bad("not applied:"), oneLine(err))
		return false
	case t.failed > 0 || t.wrong > 0:
		d.say("%s %s\n%s", d.out.bad("not applied:"), t.sum(), strings.TrimRight(text.String(), "\n"))
		return false
	}
	d.tested = digest
	d.say("%s", t.sum())
	return true
}

// follow makes sure that the function's log and events are followed.
func (d *dev) follow(ctx context.Context, name string, lost chan<- struct{}) {
	if d.name == name {
		return
	}
	d.stop()
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	d.name = name
	d.stop = func() { cancel(); followers.Wait(); d.name = "" }
	since := time.Now().Add(-time.Second) // what happened before is not of interest
	view := newLives(d.out)
	followers.Go(func() {
		d.keep(ctx, lost, func() error {
			return d.gw.Logs(ctx, api.LogQuery{Function: name, Follow: true, Limit: 1}, func(l api.LogLine) error {
				d.mu.Lock()
				defer d.mu.Unlock()
				if l.Time.After(since) {
					writeLog(d.out, l)
				}
				return nil
			})
		})
	})
	followers.Go(func() {
		d.keep(ctx, lost, func() error {
			return d.gw.Events(ctx, api.EventQuery{Function: name, Follow: true, Limit: 1}, func(l api.Life) error {
				d.mu.Lock()
				defer d.mu.Unlock()
				if l.Time.After(since) {
					view.show(l)
				}
				return nil
			})
		})
	})
}

// keep follows until ctx ends. When the list ends, the gateway has: the loop is told, and it is tried again.
func (d *dev) keep(ctx context.Context, lost chan<- struct{}, follow func() error) {
	for ctx.Err() == nil {
		_ = follow() // what is wrong, apply will say
		if ctx.Err() != nil {
			return
		}
		select {
		case lost <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

func (d *dev) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out.line(d.out.dim(time.Now().Format("15:04:05"))+" "+format, args...)
}

// oneLine puts an error and its hint on one line.
func oneLine(err error) string {
	s := err.Error()
	if h := hintOf(err); h != "" && !strings.Contains(s, h) {
		s += "\nhint: " + h
	}
	return safe(strings.ReplaceAll(s, "\n", "; "), 0)
}

// newWatch watches a folder and those in it.
func newWatch(dir string) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := addFolders(w, dir); err != nil {
		_ = w.Close()
		return nil, err
	}
	return w, nil
}

func addFolders(w *fsnotify.Watcher, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if path != dir && ignoredFile(path) {
			return filepath.SkipDir
		}
		return w.Add(path)
	})
}

// ignoredFile says whether a file is an editor's own.
func ignoredFile(path string) bool {
	name := filepath.Base(path)
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") || name == "4913"
}
