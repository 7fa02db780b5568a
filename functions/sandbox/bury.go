package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// cause is why the pool ended a worker.
type cause int

const (
	causeNone    cause = iota // it ended by itself
	causeTimeout              // over the time of an invocation
	causeMemory               // over its memory
	causeBreach               // broke the protocol
	causeStart                // was never ready
	causeIdle                 // not needed any more
	causeReserve              // others need it
	causeStop                 // the pool closes
)

// kill ends a worker for a reason. What it still says is not heard; its reader buries it.
func (p *Pool) kill(w *proc, why cause) {
	if w.state == dying || !w.launched {
		return
	}
	w.state, w.cause = dying, why
	w.timer.Stop()
	_ = w.process.Kill() // it may be dead already
	w.out.shut()
}

// bury is the last thing that the reader of a worker does: it waits for the process, blames the task that ran, and lets
// the others go to another worker.
func (p *Pool) bury(w *proc, err error) {
	alone := false // it ended before the pool ended it
	p.mu.Lock()
	if w.state != dying {
		why := causeNone
		if errors.Is(err, frame.ErrBreach) {
			why, w.detail = causeBreach, err.Error()
		}
		unlaunched := w.state == starting
		p.kill(w, why)
		if unlaunched && why == causeNone {
			w.cause, alone = causeStart, true
		}
	}
	p.mu.Unlock()
	end, waitErr := w.process.Wait()
	last := lastWords(w.stderr)
	w.stderr.Close()
	if w.detail == "" {
		w.detail = exitReason(end, waitErr, last)
	}

	p.mu.Lock()
	defer p.unlock()
	p.remove(w)
	p.count(w)
	held := w.held
	w.held = nil
	switch {
	case w.cause == causeReserve && len(held) > 0:
		p.stats.Evicted++
		p.anew(held[0])
		p.requeue(held[1:])
	case w.cause == causeBreach && len(held) > 0 && w.last != nil && held[0].breaches < maxBreaches:
		w.last.stain() // the worker may have been taken over by what it ran before
		held[0].breaches++
		p.anew(held[0])
		p.requeue(held[1:])
	case len(held) > 0:
		p.blame(w, held[0])
		p.requeue(held[1:])
	}
	if w.cause == causeStart && !outOfMemory(last) && (!alone || !killedByOther(end)) {
		p.suspect(w, w.detail)
	}
	if w.cause == causeStart || (w.cause != causeIdle && w.cause != causeStop && w.cause != causeReserve && !w.worked && len(held) == 0) {
		p.startFailed(fmt.Errorf("it ended before it had done anything: %s", w.detail))
	}
	p.dispatch()
}

// count keeps the figures and the log of a death.
func (p *Pool) count(w *proc) {
	why := ""
	switch w.cause {
	case causeTimeout:
		p.stats.Timeouts++
		why = "over its time"
	case causeMemory:
		p.stats.Memory++
		why = "over its memory"
	case causeBreach:
		p.stats.Breaches++
		why = "broke the protocol"
	case causeNone:
		p.stats.Crashes++
		p.opts.Log.Warn("a worker died", "pid", w.process.Pid, "reason", w.detail, "function", w.runs())
		return
	default:
		return
	}
	p.stats.Killed++
	p.opts.Log.Warn("killed a worker", "pid", w.process.Pid, "cause", why, "detail", w.detail, "function", w.runs())
}

// runs names the function that a worker runs.
func (w *proc) runs() string {
	if len(w.held) == 0 || w.held[0].check != nil {
		return ""
	}
	return w.held[0].Inv.Function
}

// maxBreaches is how often a task may run in a worker that breaks the protocol, if that has run others before.
const maxBreaches = 2

// anew has a task begin anew that was stopped for no fault of its own; while a call of its Ask is under way, not before
// that is over.
func (p *Pool) anew(t *task) {
	if t.asking {
		t.again = true
		return
	}
	p.requeue([]*task{t})
	p.stats.Moved--
}

// blame gives the task that ran in a dead worker its fault.
func (p *Pool) blame(w *proc, t *task) {
	ran := time.Since(w.began)
	if w.cause != causeStop {
		t.record.stain()
	}
	p.freed = true
	f := &functions.Fault{Kind: functions.FaultKilled}
	switch w.cause {
	case causeTimeout:
		f = functions.OverTimeout(ran, t.timeout())
		f.Message += "; its worker had to be killed"
	case causeMemory:
		f.Kind = functions.FaultMemory
		f.Message = fmt.Sprintf("workers.memory: %s, %d MiB are allowed; its worker had to be killed", w.detail, p.opts.Memory>>20)
		f.Hint = "keep less at once; a worker's limit is workers.memory in gateway.yaml"
	case causeBreach:
		if w.fault != nil {
			f = w.fault
			break
		}
		f.Message = "its worker broke the protocol and was killed: " + w.detail
	case causeStop:
		f.Message = "the gateway is stopping"
	default:
		f.Message = "its worker died: " + w.detail
	}
	p.settle(t, &functions.Outcome{Fault: f, Usage: functions.Usage{Wall: ran}, Lost: w.cause != causeStop})
}

// maxLastWords is what is read of a dead worker's error output.
const maxLastWords = 2 << 10

// lastWords is the first line that says something of what a worker wrote before it died, as printable text.
func lastWords(f *os.File) string {
	buf := make([]byte, maxLastWords)
	n, _ := io.ReadFull(readNow{f}, buf)
	for line := range strings.Lines(string(buf[:n])) {
		line = strings.Map(func(c rune) rune {
			if c < ' ' || c == 0x7f || c > 0xffff {
				return -1
			}
			return c
		}, strings.ToValidUTF8(line, ""))
		if line = strings.TrimSpace(line); line != "" {
			return line[:min(len(line), 300)]
		}
	}
	return ""
}

// readNow reads what is there and never waits: something that the worker has started could still hold the pipe open.
type readNow struct{ *os.File }

func (r readNow) Read(b []byte) (int, error) {
	raw, err := r.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), b)
		return true
	})
	if err = errors.Join(err, readErr); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// exitReason says how a process ended, in a few words.
func exitReason(end *os.ProcessState, err error, last string) string {
	if err != nil {
		return "it cannot be waited for: " + err.Error()
	}
	why := "it ended by itself"
	if status, ok := end.Sys().(syscall.WaitStatus); ok {
		switch {
		case status.Signaled() && status.Signal() == syscall.SIGKILL:
			why = "killed from outside, perhaps for lack of memory"
		case status.Signaled():
			why = "signal " + status.Signal().String()
		case strings.Contains(last, "out of memory"):
			why = "out of memory"
		default:
			why = fmt.Sprintf("exit status %d", status.ExitStatus())
		}
	}
	if last != "" {
		why += " (" + last + ")"
	}
	return why
}
