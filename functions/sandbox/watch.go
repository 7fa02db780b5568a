package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/perigee-iot/perigee/functions/frame"
)

const (
	slowAfter   = 5 * time.Millisecond  // then others do not wait behind it
	sampleEvery = 10 * time.Millisecond // of the memory of a worker that has been running something for this long
	revokeTime  = 2 * time.Second       // for a worker to give back what it has not begun; busy machines need a part of it
)

// tick looks at what a worker runs: is it over its time, have others waited behind it long enough, is it over its
// memory. Most invocations are over before it is ever called.
func (w *proc) tick() {
	p := w.pool
	p.mu.Lock()
	if w.state == starting && time.Since(w.began) >= startTime {
		w.detail = fmt.Sprintf("it was not ready after %v", startTime)
		p.kill(w, causeStart)
	}
	if w.state != ready || len(w.held) == 0 {
		w.ticking = false
		p.unlock()
		return
	}
	t, began := w.held[0], w.began
	ran, allowed := time.Since(began), p.allowed(t)
	switch {
	case ran >= allowed:
		p.kill(w, causeTimeout)
		p.unlock()
		return
	case ran >= overstay && t.record.clean():
		t.record.stain()
		w.slow = true
		p.dispatch()
	case ran >= slowAfter && !w.slow:
		w.slow = true
		p.dispatch()
	}
	if w.revoking && time.Since(w.revoked) >= p.revokes {
		w.detail = fmt.Sprintf("%v: it kept what it was asked to give back", frame.ErrBreach)
		p.kill(w, causeBreach)
		p.unlock()
		return
	}
	if ran >= overstay && p.mustGo() {
		p.kill(w, causeReserve)
		p.unlock()
		return
	}
	next := allowed - ran
	for _, at := range []time.Duration{slowAfter - ran, sampleEvery} {
		if at > 0 {
			next = min(next, at)
		}
	}
	w.timer.Reset(next)
	pid := w.process.Pid
	p.unlock()
	if ran < sampleEvery {
		return
	}
	rss := residentMemory(pid)
	if rss <= p.opts.Memory {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	if w.state == ready && len(w.held) > 0 && w.held[0] == t {
		w.detail = fmt.Sprintf("%d MiB", rss>>20)
		p.kill(w, causeMemory)
	}
}

// residentMemory is the RSS of a process in bytes, 0 if there is no such process.
func residentMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
