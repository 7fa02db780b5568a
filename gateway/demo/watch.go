package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/perigee-iot/perigee/gateway/api"
)

// watcher has the gateway read its functions anew when a file of theirs is saved.
type watcher struct {
	w     *workspace
	tell  func(kind, text string)
	apply func(ctx context.Context) error // reload
	fs    *fsnotify.Watcher
}

const (
	settle     = 100 * time.Millisecond // editors write a file in several steps
	maxFolders = 256
)

func newWatcher(w *workspace, tell func(kind, text string), apply func(ctx context.Context) error) (*watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch the functions: %w", err)
	}
	x := &watcher{w: w, tell: tell, apply: apply, fs: fs}
	if err := fs.Add(w.dir); err != nil {
		_ = fs.Close() // the reason is more interesting
		return nil, fmt.Errorf("watch %s: %w", w.dir, err)
	}
	x.addFolders()
	return x, nil
}

// addFolders watches what there is: the system watches no trees.
func (x *watcher) addFolders() {
	_ = filepath.WalkDir(x.w.funcs, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && len(x.fs.WatchList()) < maxFolders {
			_ = x.fs.Add(p) // one that has gone again is none to watch
		}
		return nil
	})
}

// Run watches until ctx ends.
func (x *watcher) Run(ctx context.Context) {
	defer x.fs.Close() //nolint:errcheck // only read from
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-x.fs.Events:
			if !ok {
				return
			}
			if x.matters(ev) {
				due = time.After(settle)
			}
		case err, ok := <-x.fs.Errors:
			if !ok {
				return
			}
			x.tell(bad, "watch the functions: "+err.Error())
		case <-due:
			due = nil
			x.addFolders()
			// A gateway that does not answer reads everything when it starts.
			if err := x.apply(ctx); err != nil && ctx.Err() == nil && !api.IsCode(err, api.CodeNoGateway) {
				x.tell(bad, strings.ReplaceAll(firstLine(err.Error()), x.w.dir+string(filepath.Separator), ""))
			}
		}
	}
}

// matters says whether a change is of the configuration or of a function, and not of the gateway's data or an editor's.
func (x *watcher) matters(ev fsnotify.Event) bool {
	if ev.Op == fsnotify.Chmod {
		return false
	}
	return ev.Name == x.w.config || ev.Name == x.w.funcs || strings.HasPrefix(ev.Name, x.w.funcs+string(filepath.Separator))
}
