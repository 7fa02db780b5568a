package demo

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/gateway/config"
)

func TestWorkspaceIsMadeAndUsedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with a blank", "demo")
	w, err := openWorkspace(dir)
	require.NoError(t, err)
	cfg, err := config.Load(w.config, config.Overrides{})
	require.NoError(t, err)
	require.Equal(t, []string{"tcp://" + w.broker}, cfg.Broker.Listen)
	require.Equal(t, "tcp://"+w.uplink, cfg.Uplinks[0].MQTT.URL)
	require.Equal(t, w.data, cfg.DataDir)
	require.Equal(t, w.funcs, cfg.Functions.Dir)
	found, err := bundle.LoadAll(w.funcs)
	require.NoError(t, err)
	require.Len(t, found, 5)
	for _, f := range found {
		require.NoError(t, f.Err, f.Folder)
		for _, device := range f.Bundle.Spec.Needs().Devices {
			require.Contains(t, cfg.Devices, device, "a function of the demo needs it")
		}
	}

	_, err = openWorkspace(dir)
	require.ErrorContains(t, err, "another demo runs in")
	w.Close()

	main := filepath.Join(w.funcs, "overheat", "main.lua")
	require.NoError(t, os.WriteFile(main, []byte("-- mine\n"), 0o644))
	require.NoError(t, os.RemoveAll(filepath.Join(w.funcs, "lamp")))
	before, err := os.ReadFile(w.config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.config, append(before, "# mine\n"...), 0o644))
	ln, err := net.Listen("tcp", w.broker) // the port is taken now
	require.NoError(t, err)
	defer ln.Close()
	again, err := openWorkspace(dir)
	require.NoError(t, err)
	defer again.Close()
	text, err := os.ReadFile(main)
	require.NoError(t, err)
	require.Equal(t, "-- mine\n", string(text), "edits stay")
	require.NoDirExists(t, filepath.Join(w.funcs, "lamp"), "what was removed stays removed")
	require.Equal(t, w.uplink, again.uplink)
	require.NotEqual(t, w.broker, again.broker)
	text, err = os.ReadFile(w.config)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(before), w.broker, again.broker)+"# mine\n", string(text))
}

func TestWorkspaceThatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "gateway.yaml"), []byte(text), 0o644))
	}
	write("brocker: 1\n")
	_, err := openWorkspace(dir)
	require.ErrorContains(t, err, "gateway.yaml:1:1")
	write("id: x\n")
	_, err = openWorkspace(dir)
	require.ErrorContains(t, err, "needs a tcp:// address with a port under uplinks")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err = openWorkspace(file)
	require.ErrorContains(t, err, "--dir")
}

func TestLongPathsGetAShortSocket(t *testing.T) {
	w, err := openWorkspace(filepath.Join(t.TempDir(), strings.Repeat("long", 40)))
	require.NoError(t, err)
	defer w.Close()
	require.LessOrEqual(t, len(w.socket), 100)
}

func TestLogIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gateway.log")
	r, err := newRotate(name, 1000)
	require.NoError(t, err)
	defer r.Close()
	for range 100 {
		_, err := r.Write([]byte("level=INFO msg=\"all is well\" part=engine\n"))
		require.NoError(t, err)
	}
	for _, f := range []string{name, name + ".1"} {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(1000))
	}
	_, _ = r.Write([]byte("time=x level=ERROR msg=\"the disk is full\"\nlevel=INFO msg=bye\nhalf a li"))
	require.Contains(t, r.last(), "the disk is full")
	_, _ = r.Write([]byte(strings.Repeat("x", 10*lineLen) + "\n"))
	require.LessOrEqual(t, len(r.tail[len(r.tail)-1]), lineLen)
	require.LessOrEqual(t, len(r.tail), tailLen)
	r.forget()
	require.Empty(t, r.last())
}

// TestSavingAFunctionIsNoticed, in a folder of then and in one that is made later, and so is the configuration.
func TestSavingAFunctionIsNoticed(t *testing.T) {
	w, err := openWorkspace(t.TempDir())
	require.NoError(t, err)
	defer w.Close()
	reloads := make(chan struct{}, 100)
	x, err := newWatcher(w, func(string, string) {}, func(context.Context) error { reloads <- struct{}{}; return nil })
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { x.Run(ctx) })
	defer wait.Wait()
	defer cancel()
	await := func(what string) {
		t.Helper()
		select {
		case <-reloads:
		case <-time.After(patience):
			t.Fatal("nothing was noticed of " + what)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.funcs, "overheat", "main.lua"), []byte("-- new\n"), 0o644))
	await("a saved file")
	made := filepath.Join(w.funcs, "made")
	require.NoError(t, os.Mkdir(made, 0o755))
	await("a new folder")
	require.NoError(t, os.WriteFile(filepath.Join(made, "main.lua"), []byte("-- new\n"), 0o644))
	await("a file in the new folder")
	require.NoError(t, os.WriteFile(w.config+"~", []byte("x"), 0o644))
	require.NoError(t, os.Rename(w.config+"~", w.config))
	await("the configuration")
}
