package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// subject is one of the things that are compared.
type subject struct {
	name  string
	start func(dir string, o options) (*process, error)
}

// allSubjects returns all there are, the references first.
func allSubjects(broker string) []subject {
	return []subject{
		{"bare", func(string, options) (*process, error) { return startSelf("bare", broker) }},
		{"bare-1cpu", func(string, options) (*process, error) { return startSelf("bare", broker, "GOMAXPROCS=1") }},
		{"driver", func(string, options) (*process, error) { return startSelf("driver", broker) }},
		{"driver-1cpu", func(string, options) (*process, error) { return startSelf("driver", broker, "GOMAXPROCS=1") }},
		{"perigee", func(dir string, o options) (*process, error) { return startPerigee(dir, o, broker) }},
		{"perigee-embedded", func(dir string, o options) (*process, error) { return startPerigee(dir, o, "") }},
	}
}

// choose returns the subjects that the options ask for and that are there.
func choose(o options, broker string) (chosen []subject) {
	_, err := os.Stat(o.Perigee)
	for _, s := range allSubjects(broker) {
		if o.Only == "" && strings.HasPrefix(s.name, "driver") {
			continue
		}
		if o.Only != "" && !slices.Contains(strings.Split(o.Only, ","), s.name) {
			continue
		}
		if err != nil && strings.HasPrefix(s.name, "perigee") {
			fmt.Fprintf(os.Stderr, "bench: %s is left out: %v\n", s.name, err)
			continue
		}
		chosen = append(chosen, s)
	}
	return chosen
}

func names(subjects []subject) (all []string) {
	for _, s := range subjects {
		all = append(all, s.name)
	}
	return all
}

// process is a running subject or broker.
type process struct {
	url   string // of the broker that it works with
	cmd   *exec.Cmd
	ended chan struct{}
	text  tail
}

func spawn(url string, env []string, program string, args ...string) (*process, error) {
	p := &process{url: url, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.text, &p.text
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) output() string { return p.text.String() }

// stop asks the process to end, and insists after a while.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 8192; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port, l.Close()
}

// startMosquitto runs the broker that all subjects but the embedded one share. It bounds what is in flight as it does
// by default (20), and what is queued not at all: what is lost is then lost by the subject. It sends at once, as by default it
// does not: else the milliseconds for which TCP holds small packets back would hide those of the subjects.
func startMosquitto(dir string) (*process, error) {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			return nil, errors.New("mosquitto is not installed: apt install mosquitto")
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "mosquitto.conf")
	config := "listener " + port + " 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return spawn("tcp://127.0.0.1:"+port, nil, program, "-c", file)
}

// startSelf runs this program as one of the references.
func startSelf(which, broker string, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return spawn(broker, env, self, which, broker)
}

const script = `return function(event)
  %spublish("bench/out", {seq = event.data.seq})
end
`

// startPerigee writes a configuration and a function, and runs the gateway with an external broker, or the embedded one.
func startPerigee(dir string, o options, broker string) (*process, error) {
	home, err := os.MkdirTemp(dir, "gateway-")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("id: bench\nstore: {durability: %s}\nfunctions: {dir: functions}\n", o.Store)
	url := broker
	if broker == "" {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		url = "tcp://127.0.0.1:" + port
		config += "broker: {listen: [\"" + url + "\"]}\n"
	}
	spec := "description: answers with the same sequence number\ntriggers:\n  - mqtt: bench/in\npermissions:\n  publish: [bench/out]\n"
	switch {
	case o.Keys == 0:
		spec += "key: none\n"
	case o.Keys > 1:
		spec += "key: data.key\n"
	}
	line := ""
	if o.State {
		line = "state.incr(\"n\")\n  "
	}
	for name, text := range map[string]string{
		"gateway.yaml":                 config,
		"functions/echo/function.yaml": spec,
		"functions/echo/main.lua":      fmt.Sprintf(script, line),
	} {
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	args := []string{"run", "--config", filepath.Join(home, "gateway.yaml"), "--data-dir", filepath.Join(home, "data")}
	if broker != "" {
		args = append(args, "--broker", broker)
	}
	program, err := filepath.Abs(o.Perigee)
	if err != nil {
		return nil, err
	}
	p, err := spawn(url, nil, program, args...)
	if err == nil && o.Verbose {
		go func() { <-p.ended; _, _ = io.WriteString(os.Stderr, p.output()+"\n") }()
	}
	return p, err
}
