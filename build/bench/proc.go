package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat: USER_HZ, which is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// memory is what processes have in memory, in bytes. PSS counts what several share in parts.
type memory struct {
	RSS, PSS int64
}

// usage is what a process tree has used up to now.
type usage struct {
	processes int
	own       map[int]time.Duration // CPU by process
	reaped    map[int]time.Duration // CPU of its children that have ended
	memory    memory
	written   map[int]int64 // bytes to storage
}

// tree reads a process and all below it.
func tree(root int) usage {
	u := usage{own: map[int]time.Duration{}, reaped: map[int]time.Duration{}, written: map[int]int64{}}
	for _, pid := range descendants(root) {
		f := stat(pid)
		if f == nil {
			continue
		}
		u.processes++
		u.own[pid] = (number(f[11]) + number(f[12])) * tick
		u.reaped[pid] = (number(f[13]) + number(f[14])) * tick
		m := keyed(pid, "smaps_rollup")
		u.memory.RSS += m["Rss"] * 1024
		u.memory.PSS += m["Pss"] * 1024
		u.written[pid] = keyed(pid, "io")["write_bytes"]
	}
	return u
}

// cpu is the CPU time of all that live, and of the children that they have waited for.
func (u usage) cpu() (sum time.Duration) {
	for pid, d := range u.own {
		sum += d + u.reaped[pid]
	}
	return sum
}

// bytes is what all that live have written. What a worker wrote that has ended is missing: workers write nothing.
func (u usage) bytes() (sum int64) {
	for _, n := range u.written {
		sum += n
	}
	return sum
}

// watch returns the highest memory use until quit closes.
func watch(root int, quit <-chan struct{}) (peak memory) {
	for {
		m := tree(root).memory
		peak.RSS, peak.PSS = max(peak.RSS, m.RSS), max(peak.PSS, m.PSS)
		select {
		case <-quit:
			return peak
		case <-time.After(time.Second):
		}
	}
}

// descendants returns a process and all processes below it.
func descendants(root int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if f := stat(pid); f != nil {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// stat returns the fields of /proc/PID/stat after the name, which may hold anything: 0 is the state, 1 the parent.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return nil
	}
	return f
}

func number(s string) time.Duration {
	n, _ := strconv.ParseInt(s, 10, 64)
	return time.Duration(n)
}

// keyed reads a file of lines such as "Rss:   123 kB".
func keyed(pid int, name string) map[string]int64 {
	m := map[string]int64{}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return m
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		key, rest, ok := strings.Cut(s.Text(), ":")
		if f := strings.Fields(rest); ok && len(f) > 0 {
			m[key], _ = strconv.ParseInt(f[0], 10, 64)
		}
	}
	return m
}
