package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/store"
)

// dirOfBroker, in the environment, makes the test's binary a broker on the store in that directory, to be killed.
const dirOfBroker = "PERIGEE_TEST_BROKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirOfBroker); dir != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir string) error {
	st, err := store.Open(dir, store.Options{Durability: store.Crash, MinFree: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	b, err := New(Options{Listen: []string{"tcp://127.0.0.1:0"}, Store: st, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := b.Listen(context.Background()); err != nil {
		return err
	}
	fmt.Println(b.Addr())
	return b.Run(context.Background(), (&engine{}).emit)
}

// killed is a broker in a process of its own.
func killed(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), dirOfBroker+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line), kill
}

// away makes a persistent session that is subscribed to a filter with QoS 2, stored, and without its client.
func away(t *testing.T, st *store.Store, id, filter string) {
	t.Helper()
	r := start(t, Options{Store: st})
	c, _ := dialRaw(t, r.addr, 4, login{id: id})
	c.subscribe(filter, 2)
	c.Close()
	r.stop()
}

// The process dies in the moment in which a publisher has its acknowledgement: whoever is away gets the message all the same.
func TestAcknowledgedForWhoIsAwayIsNotLost(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, dir)
	away(t, st, "sub", "a/#")
	for round := range 6 {
		require.NoError(t, st.Close())
		addr, kill := killed(t, dir)
		c, _ := dialRaw(t, addr, 4+round%2, login{id: "pub", clean: true})
		kind, qos := byte(puback), byte(1)
		if round%3 == 1 {
			kind, qos = pubrec, 2
		}
		text := fmt.Sprint("round ", round)
		c.publish("a/1", text, qos, 7, false)
		c.expect(kind, 7)
		kill()

		st = openStore(t, dir)
		r := start(t, Options{Store: st})
		sub, p := dialRaw(t, r.addr, 4, login{id: "sub"})
		require.Equal(t, byte(1), p.body[0], "session present")
		p = sub.read()
		require.Equal(t, byte(publish), p.kind)
		require.Contains(t, string(p.body), text)
		if qos == 1 {
			sub.ack(puback, p.id())
		} else {
			sub.ack(pubrec, p.id())
			sub.expect(pubrel, p.id())
			sub.ack(pubcomp, p.id())
		}
		sub.quiet()
		sub.Close()
		eventually(t, "the session is gone", func() bool { return r.Stats().Clients == 0 })
		r.stop()
	}
	require.NoError(t, st.Close())
}

// faultyStore opens a store that asks fault before it writes.
func faultyStore(t *testing.T, fault func() error) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{Durability: store.Crash, MinFree: 1 << 20, Fault: fault, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

func TestAcknowledgementsWaitForTheStoreInOrder(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		var gate sync.RWMutex // locked: the store stands still
		st := faultyStore(t, func() error { gate.RLock(); defer gate.RUnlock(); return nil })
		away(t, st, "sub", "a/#")
		r := start(t, Options{Store: st})
		open := sync.OnceFunc(gate.Unlock)
		gate.Lock()
		defer open()

		c, _ := dialRaw(t, r.addr, version, login{id: "pub", expiry: 100})
		other, _ := dialRaw(t, r.addr, version, login{id: "other", clean: true})
		c.publish("b/1", "nobody is away", 1, 1, false)
		c.expect(puback, 1)
		for id := uint16(2); id < 12; id++ {
			c.publish([]string{"a/1", "b/1"}[id%2], "x", byte(1+id%3/2), id, false)
		}
		c.quiet()
		other.publish("b/1", "another's", 1, 1, false)
		other.expect(puback, 1)
		eventually(t, "ten wait", func() bool { return r.Stats().Pending == 10 })
		c.publish("a/1", "x", 2, 2, true) // one that waits, again: id%3/2 is 1
		c.quiet()
		c.Close()

		c, _ = dialRaw(t, r.addr, version, login{id: "pub", expiry: 100})
		for id := uint16(2); id < 12; id++ {
			c.publish([]string{"a/1", "b/1"}[id%2], "x", byte(1+id%3/2), id, true)
		}
		c.quiet()
		require.Equal(t, 10, r.Stats().Pending, "repetitions are not taken again")
		open()
		for id := uint16(2); id < 12; id++ {
			c.expect([]byte{puback, pubrec}[id%3/2], id)
		}
		_, n := keys(t, st)
		require.Equal(t, 1+1+5, n, "two sessions, and what one of them has missed")
		eventually(t, "the line is empty", func() bool { return r.Stats().Pending == 0 })
	})
}

// What was acknowledged is in the store even if groups were dropped in between.
func TestAcknowledgementsWaitForAGroupThatLasts(t *testing.T) {
	var failures atomic.Int64
	st := faultyStore(t, func() error {
		if failures.Add(-1) >= 0 {
			return errors.New("no")
		}
		return nil
	})
	away(t, st, "sub", "a/#")
	r := start(t, Options{Store: st})
	c, _ := dialRaw(t, r.addr, 4, login{id: "pub", clean: true})
	for id := uint16(1); id < 6; id++ {
		failures.Store(int64(id) % 4)
		c.publish("a/1", "x", 1, id, false)
		c.expect(puback, id)
		require.Negative(t, failures.Load())
		_, n := keys(t, st)
		require.Equal(t, 1+int(id), n)
	}
}

// A subscriber that is there takes a message sooner than it would be stored, and then it never is.
func TestAcknowledgementsOfWhatIsTakenAtOnce(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	var got atomic.Int64
	s := pahoClient(t, r.addr, "sub", func(o *paho.ClientOptions) { o.SetCleanSession(false) })
	ok(t, s.Subscribe("a/#", 1, func(paho.Client, paho.Message) { got.Add(1) }))
	eventually(t, "the session is stored", func() bool { _, n := keys(t, st); return n == 1 })
	c, _ := dialRaw(t, r.addr, 4, login{id: "pub", clean: true})
	const n = 500
	for i := range uint16(n) {
		c.publish("a/1", strings.Repeat("x", 1000), 1, i+1, false)
		c.expect(puback, i+1)
	}
	eventually(t, "all messages", func() bool { return got.Load() == n })
	require.Less(t, st.Stats().BytesWritten, int64(n/2*1000))
}
