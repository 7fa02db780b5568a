package chaos

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// binary builds the gateway once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "perigee-chaos")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "perigee")
	cmd := exec.Command("go", "build", "-o", bin, "../../gateway/cmd/perigee")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return bin, nil
})

// TestMain removes the binary at the end.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if bin, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// gateway is a perigee process in a directory of its own.
type gateway struct {
	t   *testing.T
	bin string
	dir string
	cmd *exec.Cmd
	log *os.File
}

// function is a bundle of the gateway under test.
type function struct{ name, yaml, lua string }

func newGateway(t *testing.T, config string, fns []function) *gateway {
	t.Helper()
	bin, err := binary()
	require.NoError(t, err)
	g := &gateway{t: t, bin: bin, dir: t.TempDir()}
	for _, f := range fns {
		dir := filepath.Join(g.dir, "functions", f.name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "function.yaml"), []byte("name: "+f.name+"\n"+f.yaml), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "main.lua"), []byte(f.lua), 0o644))
	}
	config = "id: chaos\ndata_dir: data\nlog: {level: info, format: text}\nfunctions: {dir: functions}\n" + config
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "gateway.yaml"), []byte(config), 0o644))
	g.log, err = os.Create(filepath.Join(g.dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		g.kill()
		_ = g.log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(g.log.Name())
			t.Logf("the end of the gateway's log:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return g
}

func (g *gateway) start() {
	g.t.Helper()
	g.cmd = exec.Command(g.bin, "run", "--config", filepath.Join(g.dir, "gateway.yaml"))
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	require.NoError(g.t, g.cmd.Start())
}

// kill is kill -9, and waits for the process to be gone.
func (g *gateway) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Signal(syscall.SIGKILL)
	_ = g.cmd.Wait()
	g.cmd = nil
}

// ask runs a client command and returns what it prints.
func (g *gateway) ask(args ...string) (string, error) {
	cmd := exec.Command(g.bin, append(args, "--config", filepath.Join(g.dir, "gateway.yaml"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// stop ends the gateway as a shutdown would.
func (g *gateway) stop() {
	g.t.Helper()
	require.NoError(g.t, g.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(g.t, g.cmd.Wait())
	g.cmd = nil
}

// ready waits until the gateway answers.
func (g *gateway) ready() {
	g.t.Helper()
	eventually(g.t, "the gateway to be ready", 30*time.Second, func() bool { _, err := g.ask("status"); return err == nil })
}

// number asks for a value of a function's state, 0 if there is none.
func (g *gateway) number(fn, name, key string) int {
	out, err := g.ask("state", "get", fn, name, "--key", key)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(out)
	require.NoError(g.t, err)
	return n
}
