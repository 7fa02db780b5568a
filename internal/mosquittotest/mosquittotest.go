// Package mosquittotest runs Eclipse Mosquitto for tests: a real broker, of their own, on a free port of the loopback
// interface, with its files in the test's directory.
package mosquittotest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTimeout is how long a broker may take to listen or to end; generous, for slow machines.
const startTimeout = 30 * time.Second

// Options of a broker.
type Options struct {
	Users       map[string]string // passwords by user; empty: anonymous clients are let in
	Persistence bool              // sessions and retained messages survive Stop (not Kill)
	ACL         string            // content of an acl_file; empty: everybody may do everything
	Config      []string          // more lines of the configuration file, such as "max_inflight_messages 5"
	Certificate [2]string         // PEM files of certificate and key; with them the listener speaks TLS only
}

// Broker is a running Mosquitto.
type Broker struct {
	URL     string // "tcp://127.0.0.1:PORT", or "mqtts://…"
	Address string // "127.0.0.1:PORT"

	t       testing.TB
	program string
	dir     string
	options Options
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start runs a broker until the test ends, with the first of the options if there are any. It skips the test where mosquitto is
// not installed.
func Start(t testing.TB, options ...Options) *Broker {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	b := &Broker{t: t, program: program, dir: t.TempDir()}
	if len(options) > 0 {
		b.options = options[0]
	}
	t.Cleanup(func() { b.end(syscall.SIGKILL) })
	for range 5 { // somebody may take the free port before the broker does
		b.Address = fmt.Sprintf("127.0.0.1:%d", FreePort(t))
		if err = b.start(); err == nil {
			return b
		}
	}
	t.Fatalf("starting mosquitto: %v\n%s", err, b.Log())
	return nil
}

// Stop ends the broker as a shutdown would, and waits for it: what it persists is written.
func (b *Broker) Stop() {
	b.t.Helper()
	b.end(syscall.SIGTERM)
}

// Kill ends the broker at once: what it has not written is lost.
func (b *Broker) Kill() {
	b.t.Helper()
	b.end(syscall.SIGKILL)
}

// Restart starts the broker again at the same address, after stopping it if it runs.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	if err := b.start(); err != nil {
		b.t.Fatalf("starting mosquitto again: %v\n%s", err, b.Log())
	}
}

// Forget stops the broker and removes what it persisted, so that after Restart it knows nobody.
func (b *Broker) Forget() {
	b.t.Helper()
	b.Stop()
	if err := os.RemoveAll(filepath.Join(b.dir, "mosquitto.db")); err != nil {
		b.t.Fatal(err)
	}
}

// PID returns the broker's process.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Log returns what the broker has written to its log.
func (b *Broker) Log() string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
	return string(text)
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on, for this broker or any other server that ends and comes
// back on the same one. It is below those that Linux gives to outgoing connections, which might take it in between.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("no free port among a hundred")
	return 0
}

// start writes the configuration, runs the broker and waits until it listens.
func (b *Broker) start() error {
	config, err := b.configure()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	b.cmd = exec.Command(b.program, "-c", config)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		return err
	}
	b.ended = make(chan struct{})
	go func() {
		defer close(b.ended)
		_ = b.cmd.Wait()
	}()
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if c, err := net.Dial("tcp", b.Address); err == nil {
			return c.Close()
		}
		select {
		case <-b.ended:
			return fmt.Errorf("it ended: %v", b.cmd.ProcessState)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("it does not listen on %s", b.Address)
}

func (b *Broker) configure() (file string, err error) {
	o := b.options
	lines := []string{
		"listener " + b.Address[strings.LastIndex(b.Address, ":")+1:] + " 127.0.0.1",
		fmt.Sprintf("allow_anonymous %v", len(o.Users) == 0),
		"log_dest stdout", "log_type all", "log_timestamp_format %H:%M:%S",
	}
	b.URL = "tcp://" + b.Address
	if os.Getuid() == 0 {
		lines = append(lines, "user root") // else it gives up the right to read its own files
	}
	if o.Persistence {
		lines = append(lines, "persistence true", "persistence_location "+b.dir+"/", "autosave_interval 0")
	}
	if o.Certificate[0] != "" {
		b.URL = "mqtts://" + b.Address
		lines = append(lines, "certfile "+o.Certificate[0], "keyfile "+o.Certificate[1])
	}
	if len(o.Users) > 0 {
		passwords := filepath.Join(b.dir, "passwords")
		var text strings.Builder
		for user, password := range o.Users {
			fmt.Fprintf(&text, "%s:%s\n", user, password)
		}
		if err := os.WriteFile(passwords, []byte(text.String()), 0o600); err != nil {
			return "", err
		}
		if out, err := exec.Command("mosquitto_passwd", "-U", passwords).CombinedOutput(); err != nil {
			return "", fmt.Errorf("mosquitto_passwd: %w: %s", err, out)
		}
		lines = append(lines, "password_file "+passwords)
	}
	if o.ACL != "" {
		acl := filepath.Join(b.dir, "acl")
		if err := os.WriteFile(acl, []byte(o.ACL), 0o600); err != nil {
			return "", err
		}
		lines = append(lines, "acl_file "+acl)
	}
	file = filepath.Join(b.dir, "mosquitto.conf")
	return file, os.WriteFile(file, []byte(strings.Join(append(lines, o.Config...), "\n")+"\n"), 0o600)
}

func (b *Broker) end(sig syscall.Signal) {
	if b.cmd == nil || b.cmd.Process == nil {
		return
	}
	_ = b.cmd.Process.Signal(sig)
	select {
	case <-b.ended:
	case <-time.After(startTimeout):
		_ = b.cmd.Process.Kill()
		<-b.ended
		b.t.Errorf("mosquitto did not end after %v", sig)
	}
}
