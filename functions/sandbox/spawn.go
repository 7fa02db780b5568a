package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// How long a start may take before it counts as failed, how long is waited after a failed one, and how long jobs wait
// while no worker can be started at all.
const (
	startTime  = 15 * time.Second
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
	patience   = 10 * time.Second
)

// niceBelow is by how much workers make way for the gateway.
const niceBelow = 5

// spawn starts workers. The kernel kills a worker when the thread that started it ends, not when the process does, so
// that all of them are started from one thread that lives as long as the pool.
func (p *Pool) spawn() {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		p.spawnHere()
		return
	}
	// This is the process's main thread, which could not end with the pool. While it is held, another goroutine gets another.
	other := make(chan struct{})
	p.thread.Go(func() {
		runtime.LockOSThread()
		close(other)
		p.spawnHere()
	})
	<-other
	runtime.UnlockOSThread()
}

// spawnHere starts workers from this thread, which is locked and never unlocked: it ends with the goroutine.
func (p *Pool) spawnHere() {
	if err := inherit(); err != nil {
		p.opts.Log.Warn("workers are less confined than they should be", "err", err)
	}
	around := newShell(os.Geteuid() == 0)
	for w := range p.starts {
		without := p.without()
		for _, layer := range without {
			around.off(layer)
		}
		err := w.launch(p.opts, around, without)
		p.launched(w, err)
	}
}

// inherit gives this thread what every thread of a worker has to have from its first instruction on: set-uid programs
// and file capabilities are worthless to it, and it makes way for the gateway. Nothing else runs on this thread, and
// the Go runtime starts no other from one that is locked.
func inherit() error {
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("no_new_privs: %w", err)
	}
	raw, niceErr := unix.Getpriority(unix.PRIO_PROCESS, 0) // the system call answers 20 less the value
	if niceErr == nil {
		niceErr = unix.Setpriority(unix.PRIO_PROCESS, 0, min(max(20-raw, 0)+niceBelow, 19))
	}
	if niceErr != nil {
		niceErr = fmt.Errorf("nice: %w", niceErr)
	}
	return errors.Join(err, niceErr)
}

// launch starts the process: its end of a socket pair is descriptor 3, its error output is a pipe that is read only when
// it has died. Both ends that it gets are plain numbers here, since an os.File would make them blocking for it.
func (w *proc) launch(o Options, around *shell, without []string) error {
	var fds []int // to be closed: those of the child always, ours after an error
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket pair: %w", err)
	}
	fds = append(fds, pair[0], pair[1])
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	fds = append(fds, pipe[0], pipe[1])
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	fds = append(fds, null)
	args := append(append([]string{}, o.Command...), strconv.FormatInt(o.Memory, 10))
	if len(without) > 0 || o.Thrifty {
		args = append(args, strings.Join(without, ","))
	}
	if o.Thrifty {
		args = append(args, "thrifty") // as package worker reads it
	}
	pid, err := around.start(args, []uintptr{uintptr(null), uintptr(null), uintptr(pipe[1]), uintptr(pair[1])})
	if err != nil {
		return fmt.Errorf("starting %s: %w", o.Command[0], err)
	}
	w.process, err = os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err) // its socket closes, and so it ends
	}
	w.shell, w.trying = around.report(), around.last()
	fds = []int{pair[1], pipe[1], null}
	w.stderr = os.NewFile(uintptr(pipe[0]), "stderr of a worker")
	w.out = outbox{file: os.NewFile(uintptr(pair[0]), "worker"), fd: pair[0], wg: &w.pool.wg}
	w.frames = frame.NewReader(w.out.file, frame.FromWorker)
	return nil
}

// launched takes over what launch has started.
func (p *Pool) launched(w *proc, err error) {
	p.mu.Lock()
	defer p.unlock()
	if err != nil {
		p.remove(w)
		p.startFailed(err)
		p.dispatch()
		return
	}
	p.stats.Started++
	w.launched = true
	w.began = time.Now()
	if p.closing {
		p.kill(w, causeStop)
	} else {
		w.ticking = true
		w.timer.Reset(startTime)
	}
	p.wg.Go(w.read)
}

// startFailed waits longer and longer before the next start, and gives up on jobs that have waited too long.
func (p *Pool) startFailed(err error) {
	p.stats.StartFailures++
	p.stats.StartError = err.Error()
	if p.closing {
		return
	}
	wait := min(firstRetry<<min(p.failures, 20), lastRetry)
	p.failures++
	p.opts.Log.Error("a worker cannot be started; functions wait", "err", err, "retry_in", wait)
	p.retrying = true
	p.retry.Reset(wait)
	p.giveUp(err)
}

// giveUp ends the jobs that have waited too long, if there is no worker that could run them.
func (p *Pool) giveUp(err error) {
	if len(p.workers) > 0 {
		return
	}
	for _, t := range p.takeAll(func(t *task) bool { return time.Since(t.since) >= p.patience }) {
		p.settle(t, &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultKilled,
			Message: "no worker can be started: " + err.Error(), Hint: "see perigee doctor"}})
	}
}

// startAgain is called when the wait after a failed start is over.
func (p *Pool) startAgain() {
	p.mu.Lock()
	defer p.unlock()
	p.retrying = false
	p.giveUp(errors.New(p.stats.StartError))
	p.dispatch()
}

func (p *Pool) remove(w *proc) {
	for i, x := range p.workers {
		if x == w {
			p.workers = append(p.workers[:i], p.workers[i+1:]...)
			return
		}
	}
}

// retire ends workers that have been idle for long, the longest first, down to Warm that may be shared.
func (p *Pool) retire() {
	p.mu.Lock()
	defer p.unlock()
	p.shrinks = false
	if p.closing {
		return
	}
	for {
		var oldest *proc
		alive := 0
		for _, w := range p.workers {
			if w.state != dying && w.owner == "" {
				alive++
			}
		}
		for _, w := range p.workers {
			if w.state == ready && len(w.held) == 0 && (w.owner != "" || alive > p.opts.Warm) && (oldest == nil || w.idleSince.Before(oldest.idleSince)) {
				oldest = w
			}
		}
		if oldest == nil {
			return
		}
		if left := p.opts.Idle - time.Since(oldest.idleSince); left > 0 {
			p.shrinks = true
			p.shrink.Reset(left)
			return
		}
		p.kill(oldest, causeIdle)
	}
}
