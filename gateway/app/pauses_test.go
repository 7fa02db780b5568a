package app

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/catalog"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/store"
)

// killBusy kills the workers of this process that have used some CPU time.
func killBusy() {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		children, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, child := range strings.Fields(string(children)) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%s/stat", child))
			fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			if len(fields) < 12 {
				continue
			}
			ticks, _ := strconv.Atoi(fields[11]) // in user mode, each 10 ms
			if pid, err := strconv.Atoi(child); err == nil && ticks >= 10 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// TestAKillerIsPaused: the workers of a function die again and again. It is paused, others run; the pause outlives a
// restart, but no new revision.
func TestAKillerIsPaused(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	const yaml = "triggers: [{mqtt: in/+}]\nkey: none\nlimits: {timeout: 5m}\nretry: {attempts: 20, first: 10ms, max: 10ms}\n"
	s.function("killer", yaml, "return function() while true do end end")
	a := s.open()
	ctx := context.Background()
	state := func() *api.Function {
		f, err := a.Function(ctx, "killer")
		require.NoError(t, err)
		return f
	}
	stored := func() bool {
		var e catalog.Entry
		require.NoError(t, a.st.View(func(r store.Reader) (err error) {
			e, err = catalog.Get(r, "killer")
			return err
		}))
		return e.Paused != ""
	}
	becomesPaused := func() {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); state().State != "paused" || !stored(); time.Sleep(10 * time.Millisecond) {
			require.True(t, time.Now().Before(deadline), "it is not paused")
			killBusy()
		}
		require.Contains(t, state().Reason, "it has cost 10 workers lately, the last one: killed: ")
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	_, err := a.Invoke(short, "killer", &api.InvokeRequest{Data: json.RawMessage("1")}) // nobody waits longer; the event does
	require.Error(t, err)
	becomesPaused()
	require.Equal(t, "committed", invoke(t, a, "echo", "1").Outcome)
	require.NoError(t, a.Stop(ctx))

	a = s.open()
	require.Equal(t, "paused", state().State)
	require.Contains(t, state().Reason, "it has cost 10 workers lately")
	require.NoError(t, a.Resume(ctx, "killer"))
	require.Equal(t, "active", state().State)
	becomesPaused()

	s.function("killer", yaml, "return function() end")
	_, err = a.Reload(ctx)
	require.NoError(t, err)
	require.Equal(t, "active", state().State)
	require.Equal(t, "committed", invoke(t, a, "killer", "1").Outcome)
}
