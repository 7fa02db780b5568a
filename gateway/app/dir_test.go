package app_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/app"
	"github.com/perigee-iot/perigee/gateway/config"
)

// house is a gateway with a directory of functions to play with.
type house struct {
	*app.App
	t   *testing.T
	dir string
}

func start(t *testing.T, text string) *house {
	t.Helper()
	c := load(t, text)
	read := func() (*config.Config, error) {
		return config.Load(filepath.Join(c.Dir, "gateway.yaml"), config.Overrides{})
	}
	a, err := app.New(app.Options{Config: c, Load: read, Version: "0.1.0", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Stop(context.Background())) })
	require.NoError(t, a.Start(t.Context()))
	return &house{App: a, t: t, dir: c.Functions.Dir}
}

func (h *house) write(file, text string) {
	h.t.Helper()
	file = filepath.Join(h.dir, file)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(h.t, os.WriteFile(file, []byte(text), 0o600))
}

func (h *house) function(folder, name string) {
	h.write(folder+"/function.yaml", "name: "+name+"\ntriggers: [{mqtt: a/b}]\n")
	h.write(folder+"/main.lua", "return function() end\n")
}

// reload returns what the reload changed, and what it says is wrong.
func (h *house) reload() (changed, problems string) {
	h.t.Helper()
	r, err := h.Reload(h.t.Context())
	require.NoError(h.t, err)
	status, err := h.Status(h.t.Context())
	require.NoError(h.t, err)
	require.ElementsMatch(h.t, r.Problems, status.Problems)
	return strings.Join(r.Changed, "\n"), strings.Join(r.Problems, "\n")
}

func (h *house) names() (names []string) {
	h.t.Helper()
	list, err := h.Functions(h.t.Context())
	require.NoError(h.t, err)
	for _, f := range list {
		names = append(names, f.Name+" "+f.State)
	}
	return names
}

// TestReloadSaysWhatIsWrong goes through the life of a folder: right, wrong in two ways, mended, gone. What is wrong is said once it
// is, and no longer when it is not.
func TestReloadSaysWhatIsWrong(t *testing.T) {
	h := start(t, "")
	h.function("one", "one")
	changed, problems := h.reload()
	require.Equal(t, "function one created", changed)
	require.Empty(t, problems)

	h.write("one/main.lua", "return function(")
	_, problems = h.reload()
	require.Contains(t, problems, "main.lua:1")
	require.Equal(t, []string{"one active"}, h.names())

	h.write("two/function.yaml", "triggers: [{mqtt: a/{b}}]\n")
	h.write("two/main.lua", "return function() end")
	_, problems = h.reload()
	require.Contains(t, problems, "two/function.yaml:1:")

	require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "two")))
	h.function("one", "one")
	changed, problems = h.reload()
	require.Empty(t, changed)
	require.Empty(t, problems)
}

// TestBrokenFolderRemovesNothing: a function whose folder has another name stays while its function.yaml cannot be read.
func TestBrokenFolderRemovesNothing(t *testing.T) {
	h := start(t, "")
	h.function("folder-1", "first")
	h.function("folder-2", "second")
	h.reload()
	h.write("folder-1/function.yaml", "name: [")
	changed, problems := h.reload()
	require.Empty(t, changed)
	require.Contains(t, problems, "folder-1/function.yaml")
	require.Equal(t, []string{"first active", "second active"}, h.names())

	require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "folder-1")))
	changed, _ = h.reload()
	require.Equal(t, "function first removed", changed)
}

// TestMissingDirectoryRemovesNothing: the directory of functions may be on a disk that is not there today.
func TestMissingDirectoryRemovesNothing(t *testing.T) {
	h := start(t, "")
	h.function("one", "one")
	h.reload()
	require.NoError(t, os.Rename(h.dir, h.dir+".away"))
	changed, problems := h.reload()
	require.Empty(t, changed)
	require.Contains(t, problems, "there is no directory "+h.dir)
	require.NoError(t, os.Mkdir(h.dir, 0o700))
	changed, problems = h.reload()
	require.Equal(t, "function one removed", changed)
	require.Empty(t, problems)
}

// TestReloadSaysWhyBlocked names the missing device in the answer, and starts the function when it is there.
func TestReloadSaysWhyBlocked(t *testing.T) {
	h := start(t, "")
	h.write("fan/function.yaml", "triggers: [{mqtt: a/b}]\npermissions: {devices: {write: [fan]}}\n")
	h.write("fan/main.lua", "return function() end")
	changed, _ := h.reload()
	require.Equal(t, `function fan created, blocked: needs device "fan"; add it under devices: in gateway.yaml`, changed)
	require.NoError(t, h.Pause(t.Context(), "fan", "for a test"))
	err := h.Resume(t.Context(), "fan")
	require.True(t, api.IsCode(err, api.CodeConflict))
	require.ErrorContains(t, err, `function fan stays blocked: needs device "fan"`)
	file := filepath.Join(filepath.Dir(h.dir), "gateway.yaml")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(text, "devices: {fan: {sim: {switch: off}}}\n"...), 0o600))
	changed, _ = h.reload()
	require.Contains(t, changed, "function fan active")
	require.NoError(t, h.Resume(t.Context(), "fan"))
}

// TestUnknownNamesAreSaid: a name that is not there is no empty list.
func TestUnknownNamesAreSaid(t *testing.T) {
	h := start(t, "")
	h.function("one", "one")
	h.reload()
	events := func(q api.EventQuery) error { return h.Events(t.Context(), q, func(api.Life) error { return nil }) }
	require.NoError(t, events(api.EventQuery{Function: "one"}))
	require.True(t, api.IsCode(events(api.EventQuery{Function: "nope"}), api.CodeNotFound))
	require.True(t, api.IsCode(events(api.EventQuery{Topic: "a/#/b"}), api.CodeBadRequest))
	_, err := h.State(t.Context(), api.StateRef{Function: "one"})
	require.NoError(t, err)
	_, err = h.State(t.Context(), api.StateRef{Function: "nope"})
	require.True(t, api.IsCode(err, api.CodeNotFound))
}

// TestEventsLimitCountsWhatIsShown: the limit is of the events that a filter leaves, not of those that it looks at.
func TestEventsLimitCountsWhatIsShown(t *testing.T) {
	h := start(t, "")
	h.function("one", "one")
	h.function("two", "two")
	h.reload()
	for _, name := range []string{"one", "one", "two", "two", "two"} {
		_, err := h.Invoke(h.t.Context(), name, &api.InvokeRequest{Data: []byte("1")})
		require.NoError(t, err)
	}
	n := 0
	err := h.Events(t.Context(), api.EventQuery{Function: "one", Limit: 1}, func(l api.Life) error {
		require.Equal(t, "one", l.Outcomes[0].Function)
		n++
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, n)
}
