package sandbox

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// realPool is a pool of workers as they run on a gateway.
func realPool(t testing.TB, change func(*Options)) *Pool {
	t.Helper()
	o := Options{Command: []string{"/proc/self/exe", "worker"}, Warm: 1, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	p, err := New(o)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func lua(source string) *functions.Bundle {
	sum := sha256.Sum256([]byte(source))
	return &functions.Bundle{Digest: hex.EncodeToString(sum[:]), Files: map[string][]byte{"main.lua": []byte(source)}}
}

// with makes a job run this bundle.
func with(b *functions.Bundle, timeout time.Duration) func(*Job) {
	return func(j *Job) {
		j.Bundle, j.Inv.Revision = b, b.Digest
		j.Inv.Event.Type, j.Inv.Env = "message", []byte("{}")
		j.Inv.Limits.Timeout = timeout
	}
}

var double = lua("return function(event) return event.data * 2 end")

func TestRealRun(t *testing.T) {
	p := realPool(t, nil)
	o := run(t, p, "21", with(double, time.Second))
	require.Nil(t, o.Fault)
	require.Equal(t, "42", string(o.Result))
	require.Nil(t, p.Check(t.Context(), double))
	f := p.Check(t.Context(), lua("return function( end"))
	require.NotNil(t, f)
	require.Equal(t, functions.FaultError, f.Kind)
	require.Contains(t, f.Message, "main.lua:1")
	o = run(t, p, "1", with(lua("return function( end"), time.Second))
	require.Equal(t, functions.FaultError, o.Fault.Kind)
	for _, l := range p.Stats().Layers {
		require.True(t, l.State == frame.On || l.State == frame.Unavailable, "%s is %s: %s", l.Name, l.State, l.Why)
	}
}

func TestRealAsk(t *testing.T) {
	p := realPool(t, nil)
	o := run(t, p, "1", func(j *Job) {
		with(lua(`return function() return state.get("n") + 1 end`), time.Second)(j)
		j.Ask = func(r functions.Read) functions.ReadAnswer {
			return functions.ReadAnswer{Read: r, Value: []byte("41")}
		}
	})
	require.Nil(t, o.Fault)
	require.Equal(t, "42", string(o.Result))
}

// TestRealCodeIsSentAgain: a worker that has dropped code asks for it.
func TestRealCodeIsSentAgain(t *testing.T) {
	p := realPool(t, func(o *Options) { o.Max = 1 })
	for round := range 2 {
		for i := range 80 {
			b := lua(fmt.Sprintf("return function() return %d end", i))
			o := run(t, p, "1", with(b, 5*time.Second))
			require.Nil(t, o.Fault, "%d %d", round, i)
			require.Equal(t, strconv.Itoa(i), string(o.Result))
		}
	}
	p.mu.Lock()
	for i := range 64 { // as if it had been sent all of them lately
		p.workers[0].has[lua(fmt.Sprintf("return function() return %d end", i)).Digest] = struct{}{}
	}
	p.mu.Unlock()
	o := run(t, p, "1", with(lua("return function() return 3 end"), 5*time.Second))
	require.Nil(t, o.Fault)
	require.Equal(t, "3", string(o.Result))
	require.Zero(t, p.Stats().Breaches)
}

// TestRealAttacks: each ends in a fault soon, and the next invocation succeeds.
func TestRealAttacks(t *testing.T) {
	p := realPool(t, nil)
	for name, body := range map[string]string{
		"loop":      `while true do end`,
		"pcall":     `while true do pcall(function() while true do end end) end`,
		"strings":   `local s = "x" while true do s = s .. s end`,
		"tables":    `local t = {} for i = 1, 1e9 do t[i] = {i} end`,
		"one table": `local t = {} t[67108862] = 1 local u = {} for i = 1, 1e9 do u[i] = i end`,
		"recursion": `local function f() return 1 + f() end return f()`,
		"pattern":   `return ("a"):rep(30000):find(("a*"):rep(200) .. "b")`,
		"format":    `return string.format("%999999999d", 1)`,
		"wrap":      `local function f() return coroutine.wrap(f)() end return f()`,
		"rep":       `return ("x"):rep(1e10)`,
		"result":    `local t = {} for i = 1, 100000 do t[i] = i end return t`,
	} {
		t.Run(name, func(t *testing.T) {
			o := run(t, p, "1", with(lua("return function() "+body+" end"), 300*time.Millisecond))
			require.NotNil(t, o.Fault)
			t.Log(o.Fault, o.Usage)
			require.Zero(t, p.Stats().Breaches)
			require.Equal(t, "4", string(run(t, p, "2", with(double, 5*time.Second)).Result))
		})
	}
}

func TestRealParserAttacks(t *testing.T) {
	p := realPool(t, nil)
	for name, source := range map[string]string{
		"braces": "return " + strings.Repeat("{", 60_000),
		"not":    "return " + strings.Repeat("not ", 15_000),
		"parens": "return " + strings.Repeat("(", 60_000),
		"binary": "\x1bLua\x51",
	} {
		t.Run(name, func(t *testing.T) {
			require.NotNil(t, p.Check(t.Context(), lua(source)))
			require.Nil(t, p.Check(t.Context(), double))
		})
	}
}

// TestRealMany: many submitters over two workers, some of whose invocations end badly.
func TestRealMany(t *testing.T) {
	p := realPool(t, func(o *Options) { o.Grace = 20 * time.Millisecond })
	endless := lua("while true do end")
	var wg sync.WaitGroup
	var good, bad, wrong atomic.Int32
	for i := range 1000 {
		wg.Add(1)
		j := job(strconv.Itoa(i), func(o *functions.Outcome) {
			defer wg.Done()
			switch {
			case i%250 == 7 && o.Fault != nil:
				bad.Add(1)
			case i%250 != 7 && o.Fault == nil && string(o.Result) == strconv.Itoa(2*i):
				good.Add(1)
			default:
				wrong.Add(1)
				t.Error(i, string(o.Result), o.Fault)
			}
		})
		b := double
		if i%250 == 7 {
			b = endless
		}
		with(b, 2*time.Second)(&j)
		if b == endless {
			j.Inv.Limits.Timeout = 30 * time.Millisecond
		}
		p.Submit(j)
	}
	wg.Wait()
	require.EqualValues(t, 996, good.Load())
	require.EqualValues(t, 4, bad.Load())
}

// TestRealSlowOnesMakeWay: what stands behind a long invocation is run by another worker meanwhile, also if the long one
// waits for an answer.
func TestRealSlowOnesMakeWay(t *testing.T) {
	for name, source := range map[string]string{
		"waits": `return function() return state.get("n") end`,
		"computes": `return function()
			for i = 1, 250 do
				local t = os.clock()
				while os.clock() - t < 0.1 do end
				if state.get("n" .. i) then return end
			end
		end`,
	} {
		t.Run(name, func(t *testing.T) {
			p := realPool(t, nil)
			require.Nil(t, run(t, p, "1", with(double, 5*time.Second)).Fault)
			goOn := make(chan struct{})
			slow := make(chan *functions.Outcome, 1)
			j := job("1", func(o *functions.Outcome) { slow <- o })
			with(lua(source), time.Minute)(&j)
			j.Ask = func(r functions.Read) functions.ReadAnswer {
				if name == "waits" {
					<-goOn
					return functions.ReadAnswer{Read: r, Value: []byte("1")}
				}
				select {
				case <-goOn:
					return functions.ReadAnswer{Read: r, Value: []byte("1")}
				default:
					return functions.ReadAnswer{Read: r}
				}
			}
			jobs := []Job{j}
			var fast sync.WaitGroup
			for range 5 {
				fast.Add(1)
				j := job("1", func(o *functions.Outcome) {
					if o.Fault != nil {
						t.Error(o.Fault)
					}
					fast.Done()
				})
				with(double, time.Minute)(&j)
				jobs = append(jobs, j)
			}
			begin := time.Now()
			p.Submit(jobs...)
			fast.Wait()
			t.Logf("the others were done after %v", time.Since(begin))
			require.Empty(t, slow)
			require.NotZero(t, p.Stats().Moved)
			close(goOn)
			require.Nil(t, receive(t, slow).Fault)
		})
	}
}

// TestRealSlowAnswers: an answer that takes longer than the invocation may costs it, not its worker; and Done waits for Ask.
func TestRealSlowAnswers(t *testing.T) {
	p := realPool(t, func(o *Options) { o.Grace = 30 * time.Second })
	var asking atomic.Bool
	o := run(t, p, "1", func(j *Job) {
		with(lua(`return function() return state.get("n") end`), 20*time.Millisecond)(j)
		j.Ask = func(r functions.Read) functions.ReadAnswer {
			asking.Store(true)
			defer asking.Store(false)
			eventually(t, "the worker is free again", func() bool { return p.Stats().Busy == 0 })
			return functions.ReadAnswer{Read: r}
		}
		done := j.Done
		j.Done = func(o *functions.Outcome) {
			if asking.Load() {
				t.Error("Done was called while Ask was under way")
			}
			done(o)
		}
	})
	require.NotNil(t, o.Fault)
	require.Equal(t, functions.FaultTimeout, o.Fault.Kind)
	require.Equal(t, "2", string(run(t, p, "1", with(double, 5*time.Second)).Result))
	require.Zero(t, p.Stats().Killed)
}

// TestRealConfinement looks at a real worker from outside.
func TestRealConfinement(t *testing.T) {
	t.Setenv("PERIGEE_SECRET", "must not be inherited")
	leak, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer leak.Close()
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, leak.Fd(), syscall.F_SETFD, 0) // inherited by whatever is started now
	require.Zero(t, errno)
	p := realPool(t, nil)
	require.Nil(t, run(t, p, "1", with(double, 5*time.Second)).Fault)
	proc := fmt.Sprintf("/proc/%d/", onlyPid(p))

	read := func(name string) string {
		b, err := os.ReadFile(proc + name)
		require.NoError(t, err)
		return string(b)
	}
	require.NotContains(t, read("environ"), "PERIGEE_SECRET")
	require.Equal(t, "1000", strings.TrimSpace(read("oom_score_adj")))
	tasks, err := os.ReadDir(proc + "task")
	require.NoError(t, err)
	for _, task := range tasks {
		require.Contains(t, read("task/"+task.Name()+"/status"), "NoNewPrivs:\t1")
		stat := read("task/" + task.Name() + "/stat")
		require.Equal(t, "5", strings.Fields(stat[strings.LastIndex(stat, ")"):])[17], "the nice value")
	}
	limits := read("limits")
	want := []string{`Max core file size +0 +0`, `Max file size +0 +0`, `Max open files +16 +16`}
	if !raced {
		want = append(want, `Max data size +\d+ +\d+`)
	}
	for _, want := range want {
		require.Regexp(t, regexp.MustCompile(want), limits)
	}
	fds, err := os.ReadDir(proc + "fd")
	require.NoError(t, err)
	for _, fd := range fds {
		n, _ := strconv.Atoi(fd.Name())
		to, _ := os.Readlink(proc + "fd/" + fd.Name())
		require.True(t, n <= 3 || strings.HasPrefix(to, "anon_inode:[event"), "descriptor %d is %s", n, to)
	}
	require.NoError(t, syscall.Kill(onlyPid(p), syscall.SIGTERM))
	require.NoError(t, syscall.Kill(onlyPid(p), syscall.SIGINT))
	require.Equal(t, "2", string(run(t, p, "1", with(double, time.Second)).Result), "only the gateway ends a worker")
	require.Zero(t, p.Stats().Crashes)
}

func onlyPid(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[0].process.Pid
}

// TestRealIdleMemory keeps an idle worker small: what it has for itself alone.
func TestRealIdleMemory(t *testing.T) {
	p := realPool(t, nil)
	require.Nil(t, run(t, p, "1", with(double, 5*time.Second)).Fault)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", onlyPid(p)))
	require.NoError(t, err)
	figure := func(name string) int {
		m := regexp.MustCompile(`(?m)^` + name + `: +(\d+) kB`).FindSubmatch(text)
		require.NotNil(t, m)
		n, _ := strconv.Atoi(string(bytes.TrimSpace(m[1])))
		return n
	}
	t.Logf("an idle worker: RSS %d kB, PSS %d kB, anonymous %d kB", figure("Rss"), figure("Pss"), figure("Anonymous"))
	if !raced {
		require.Less(t, figure("Anonymous"), 8<<10)
	}
}

// gatewayMain is a gateway whose workers must not outlive it: it says who its worker is, and runs on.
func gatewayMain() {
	p, err := New(Options{Command: []string{"/proc/self/exe", "worker"}, Warm: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	began := make(chan struct{})
	j := job("1", func(*functions.Outcome) {})
	with(lua(`state.get("began") while true do end`), time.Hour)(&j)
	j.Ask = func(r functions.Read) functions.ReadAnswer {
		close(began)
		return functions.ReadAnswer{Read: r}
	}
	p.Submit(j)
	<-began
	fmt.Println(onlyPid(p))
	time.Sleep(time.Hour)
}

// TestRealWorkersDieWithTheGateway: even one that is in an endless loop, and even if the gateway is killed.
func TestRealWorkersDieWithTheGateway(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	gateway := exec.Command(exe, "gateway")
	out, err := gateway.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, gateway.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, 0))
	require.NoError(t, gateway.Process.Kill())
	_ = gateway.Wait()
	eventually(t, "the worker is gone", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// TestRealGatewayThreads: what the spawning thread hands down to workers, it does not hand to the gateway.
func TestRealGatewayThreads(t *testing.T) {
	p := realPool(t, nil)
	require.Nil(t, run(t, p, "1", with(double, 5*time.Second)).Fault)
	eventually(t, "the threads of earlier pools are gone", func() bool {
		tasks, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		confined := 0
		for _, task := range tasks {
			status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
			if err == nil && bytes.Contains(status, []byte("NoNewPrivs:\t1")) {
				confined++
				require.NotEqual(t, strconv.Itoa(os.Getpid()), task.Name(), "the main thread")
			}
		}
		return confined <= 1
	})
}
