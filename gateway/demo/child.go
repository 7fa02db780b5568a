package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
)

// child is the gateway, as a process of its own that is started again whenever it ends.
type child struct {
	program string
	args    []string
	dir     string // where everything is; messages need not name it
	log     *rotate
	client  *api.Client
	tell    func(kind, text string) // a line for the feed
	retry   time.Duration           // longest wait before the next start
	crew    *crew

	mu     sync.Mutex // guards what follows
	proc   *os.Process
	state  childState
	dying  bool      // this process has been killed by hand
	kills  int       // that it has not come back from yet
	killed time.Time // the first of them
}

// childState is how the gateway is.
type childState struct {
	PID     int       // 0: none
	Ready   bool      // it has said so itself
	Since   time.Time // of the process
	Trouble string    // why it does not run, a sentence
	Kills   int       // kills that it has come back from
}

const (
	stopWithin  = 15 * time.Second       // for a stop in peace
	firstRetry  = 250 * time.Millisecond // before it is started again
	lastRetry   = 5 * time.Second
	readyAsking = 25 * time.Millisecond
	steady      = 10 * time.Second // one that ran for so long is started again soon
)

// newChild prepares the gateway of a workspace.
func newChild(w *workspace, log *rotate, client *api.Client, tell func(kind, text string)) *child {
	return &child{
		program: selfPath(), dir: w.dir, log: log, client: client, tell: tell, retry: lastRetry,
		args: []string{"run", "--config", w.config, "--data-dir", w.data, "--socket", w.socket},
	}
}

// selfPath is this program: on Linux the very file that runs, even if it has been replaced since.
func selfPath() string {
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		return "/proc/self/exe"
	}
	if p, err := os.Executable(); err == nil {
		return p
	}
	return os.Args[0]
}

// status returns how it is.
func (c *child) status() childState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// kill ends the gateway with SIGKILL, as a power cut would.
func (c *child) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return errors.New("the gateway is not running")
	}
	if c.dying {
		return errors.New("the gateway is being killed already")
	}
	if err := c.proc.Kill(); err != nil {
		return fmt.Errorf("kill the gateway: %w", err)
	}
	if c.kills == 0 {
		c.killed = time.Now()
	}
	c.dying = true
	c.kills++
	return nil
}

// Run keeps the gateway running until ctx ends, then stops it in peace and returns when it is gone.
func (c *child) Run(ctx context.Context) {
	// The kernel ends the child when the thread ends that started it: so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.wasKilled() || time.Since(began) > steady {
			wait = firstRetry
		}
		if !c.wasKilled() {
			c.trouble(err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, c.retry)
		}
	}
}

func (c *child) wasKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dying
}

// trouble remembers and tells why the gateway does not run.
func (c *child) trouble(err error) {
	text := "the gateway ended: " + strings.ReplaceAll(plainLog(c.reason(err)), c.dir+string(filepath.Separator), "")
	c.mu.Lock()
	again := c.state.Trouble == text
	c.state.Trouble = text
	c.mu.Unlock()
	if !again {
		c.tell(bad, text)
	}
}

// reason is why it ended with err: what its log says, unless somebody ended it, of which its log knows nothing.
func (c *child) reason(err error) string {
	var exit *exec.ExitError
	switch why := c.log.last(); {
	case err == nil:
		return "it was told to stop"
	case errors.As(err, &exit) && exit.ExitCode() < 0, why == "":
		return err.Error() // signal: killed
	default:
		return why
	}
}

// plainLog takes the sentence out of a line of the log.
func plainLog(line string) string {
	line = strings.TrimPrefix(line, "perigee: ")
	if i := strings.Index(line, "msg="); i >= 0 {
		return line[i+len("msg="):]
	}
	return line
}

// once runs the gateway once, and returns when it has ended.
func (c *child) once(ctx context.Context) error {
	c.log.forget()
	cmd := exec.Command(c.program, c.args...)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.WaitDelay = 2 * time.Second // a worker may outlive it for a moment, with the log open
	cmd.SysProcAttr = procAttr()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	c.mu.Lock()
	c.proc, c.dying = cmd.Process, false
	c.state.PID, c.state.Ready, c.state.Since = cmd.Process.Pid, false, time.Now()
	c.mu.Unlock()

	watching, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	c.crew.start(&wait, func() { c.watch(watching, cmd.Process.Pid) })
	c.crew.start(&wait, func() { endInPeace(ctx, watching, cmd.Process) })
	err := cmd.Wait()
	c.mu.Lock()
	c.proc, c.state.PID, c.state.Ready = nil, 0, false
	c.mu.Unlock()
	stop()
	wait.Wait()
	return err
}

// environment is ours, without what is meant for this process alone.
func environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			env = append(env, v)
		}
	}
	return env
}

// endInPeace stops the process when ctx ends, by force if it does not stop; it returns when gone ends.
func endInPeace(ctx, gone context.Context, p *os.Process) {
	<-gone.Done() // which ends with ctx, or with the process
	if ctx.Err() == nil {
		return
	}
	_ = p.Signal(syscall.SIGTERM) // it may be gone
	// Nobody reaps the process before cmd.Wait has returned in once, so the signal below cannot meet a stranger:
	// os.Process knows that it is done.
	deadline := time.NewTimer(stopWithin)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if p.Signal(syscall.Signal(0)) != nil {
				return
			}
		case <-deadline.C:
			_ = p.Kill()
			return
		}
	}
}

// watch asks until the gateway is ready, and says that it has come back if it was killed before.
func (c *child) watch(ctx context.Context, pid int) {
	for ctx.Err() == nil {
		s, err := c.client.Status(ctx)
		if err == nil && s.Ready && s.PID == pid {
			c.ready(pid)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(readyAsking):
		}
	}
}

func (c *child) ready(pid int) {
	c.mu.Lock()
	if c.state.PID != pid {
		c.mu.Unlock()
		return
	}
	kills, took, trouble := c.kills, time.Since(c.killed), c.state.Trouble
	c.kills = 0
	c.state.Kills += kills
	c.state.Ready, c.state.Trouble = true, ""
	c.mu.Unlock()
	switch {
	case kills > 0:
		c.tell(good, fmt.Sprintf("the gateway is back as pid %d, %s after the kill", pid, brief(took)))
	case trouble != "":
		c.tell(good, fmt.Sprintf("the gateway runs, as pid %d", pid))
	}
}
