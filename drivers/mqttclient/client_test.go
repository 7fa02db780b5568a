package mqttclient

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

func TestDeliversEveryQoS(t *testing.T) {
	b := mosquittotest.Start(t)
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			e := newEngine()
			c := newClient(t, b.URL, e)
			startWith(t, c, e, filter(fmt.Sprintf("q%d/+/temperature", qos), qos))
			p := newPeer(t, b.URL)
			for i := range 50 {
				p.publish(fmt.Sprintf("q%d/room/temperature", qos), qos, false, fmt.Sprint(i))
			}
			p.publish(fmt.Sprintf("q%d/room/humidity", qos), qos, false, "not for us")
			eventually(t, "50 messages", func() bool { return len(e.ran()) == 50 })
			for i, d := range e.deliveries() {
				require.Equal(t, fmt.Sprint(i), string(d.Event.Data), "in order")
				require.Equal(t, "mqtt", d.Event.Source)
				require.Equal(t, event.Message, d.Event.Type)
				require.Equal(t, fmt.Sprintf("q%d/room/temperature", qos), d.Event.Subject)
				require.Equal(t, d.Event.Subject, d.Event.Topic)
				require.False(t, d.Event.Retained)
				require.Equal(t, qos == 0, d.Ack == nil, "QoS 0 cannot be acknowledged")
				require.Equal(t, qos == 0, d.Mark == "")
				require.False(t, d.Again)
			}
			eventually(t, "the acknowledgements to be proved", func() bool { return e.marked() == 0 })
		})
	}
}

func TestRetained(t *testing.T) {
	b := mosquittotest.Start(t)
	newPeer(t, b.URL).publish("r/a", 1, true, "kept")
	e := newEngine()
	c := newClient(t, b.URL, e)
	startWith(t, c, e, filter("r/#", 1))
	eventually(t, "the retained message", func() bool { return len(e.ran()) == 1 })
	require.True(t, e.deliveries()[0].Event.Retained)
}

// More messages than the broker sends without an acknowledgement: it waits for ours.
func TestHeldAcknowledgementsHoldTheBroker(t *testing.T) {
	b := mosquittotest.Start(t, mosquittotest.Options{Config: []string{"max_inflight_messages 20"}})
	e := newEngine()
	e.hold = true
	c := newClient(t, b.URL, e)
	startWith(t, c, e, filter("h/#", 1))
	p := newPeer(t, b.URL)
	for i := range 100 {
		p.publish("h/x", 1, false, fmt.Sprint(i))
	}
	eventually(t, "20 messages in flight", func() bool { return len(e.deliveries()) == 20 })
	e.release()
	eventually(t, "all messages", func() bool { return len(e.ran()) == 100 })
}

func TestUnacknowledgedIsSentAgain(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			b := mosquittotest.Start(t)
			proxy := newProxy(t, b.Address)
			e := newEngine()
			e.hold = true
			c := newClient(t, "tcp://"+proxy.addr, e)
			startWith(t, c, e, filter("u/#", qos))
			p := newPeer(t, b.URL)
			for i := range 5 {
				p.publish("u/x", qos, false, fmt.Sprint(i))
			}
			eventually(t, "5 messages", func() bool { return len(e.deliveries()) == 5 })
			proxy.cut()
			eventually(t, "the same 5 again", func() bool { return len(e.deliveries()) == 10 })
			for _, d := range e.deliveries()[5:] {
				require.True(t, d.Again)
			}
			e.release()
			eventually(t, "5 accepted and proved", func() bool { return e.marked() == 0 && c.Connected() })
			require.Len(t, e.ran(), 5)
			require.EqualValues(t, 2, c.Status().Connects)
			require.Zero(t, c.Status().LostSessions)
		})
	}
}

// The acknowledgements are written and lost: the marks recognise the repetitions.
func TestLostAcknowledgements(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			b := mosquittotest.Start(t)
			proxy := newProxy(t, b.Address)
			e := newEngine()
			e.hold = true
			c := newClient(t, "tcp://"+proxy.addr, e)
			startWith(t, c, e, filter("l/#", qos))
			p := newPeer(t, b.URL)
			for i := range 5 {
				p.publish("l/x", qos, false, fmt.Sprint(i))
			}
			eventually(t, "5 messages", func() bool { return len(e.deliveries()) == 5 })
			proxy.freeze(true)
			e.release()
			require.Len(t, e.ran(), 5)
			require.Equal(t, 5, e.marked(), "nothing proves that the acknowledgements were read")
			proxy.cut()
			proxy.freeze(false)
			eventually(t, "the same 5 again", func() bool { return len(e.deliveries()) == 10 })
			eventually(t, "proof", func() bool { return e.marked() == 0 })
			require.Len(t, e.ran(), 5, "nothing is committed twice")
		})
	}
}

func TestBrokerRestartWithPersistence(t *testing.T) {
	b := mosquittotest.Start(t, mosquittotest.Options{Persistence: true})
	e := newEngine()
	c := newClient(t, b.URL, e)
	stop := startWith(t, c, e, filter("p/#", 1))
	stop()
	newPeer(t, b.URL).publish("p/x", 1, false, "while away")
	b.Restart()
	start(t, c, e)
	eventually(t, "what came while away", func() bool { return len(e.ran()) == 1 })
	require.Zero(t, c.Status().LostSessions)

	b.Restart()
	eventually(t, "connected again", func() bool { return c.Connected() && c.Status().Connects == 3 })
	newPeer(t, b.URL).publish("p/x", 1, false, "after")
	eventually(t, "what came after", func() bool { return len(e.ran()) == 2 })
}

func TestSessionLost(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	c := newClient(t, b.URL, e)
	startWith(t, c, e, filter("s/#", 1))
	require.Zero(t, c.Status().LostSessions, "the first session is none that was lost")
	before := len(e.forgets)
	b.Restart()
	eventually(t, "connected again", func() bool { return c.Connected() && c.Status().Connects == 2 })
	require.EqualValues(t, 1, c.Status().LostSessions)
	require.Equal(t, []string{"perigee-gw"}, e.forgets[before:], "the broker counts its packet ids anew")
	newPeer(t, b.URL).publish("s/x", 1, false, "subscribed again")
	eventually(t, "the message", func() bool { return len(e.ran()) == 1 })
}

// Partly overlapping filters go to several sessions; every message is delivered once, and is whole after a restart of
// the gateway and a change of its filters.
func TestOverlappingFiltersDeliverOnce(t *testing.T) {
	b := mosquittotest.Start(t, mosquittotest.Options{Persistence: true})
	e := newEngine()
	dir := t.TempDir()
	withDir := func(o *Options) { o.Dir = dir }
	c := newClient(t, b.URL, e, withDir)
	stop := startWith(t, c, e, filter("a/#", 1), filter("+/b", 1), filter("a/x", 0))
	require.Equal(t, 2, c.Status().Sessions)
	p := newPeer(t, b.URL)
	send := func(n string) {
		for _, topic := range []string{"a/b", "c/b", "a/x"} {
			p.publish(topic, 1, false, n)
		}
	}
	send("1")
	eventually(t, "3 messages", func() bool { return len(e.ran()) >= 3 })
	require.NoError(t, c.Subscribe(context.Background(), []drivers.Filter{filter("a/#", 1), filter("+/b", 1), filter("a/+", 1)}))
	send("2")
	eventually(t, "3 more", func() bool { return len(e.ran()) >= 6 })
	require.ElementsMatch(t, []string{"a/b=1", "c/b=1", "a/x=1", "a/b=2", "c/b=2", "a/x=2"}, e.ran())
	require.EqualValues(t, 2, c.Status().Copies)
	stop()

	send("3")
	e = newEngine()
	c = newClient(t, b.URL, e, withDir)
	startWith(t, c, e, filter("+/b", 1), filter("c/#", 1)) // a/# is gone, c/# is new
	eventually(t, "what came while away", func() bool { return len(e.ran()) >= 3 })
	send("4")
	eventually(t, "what is still subscribed", func() bool { return len(e.ran()) >= 5 })
	require.Equal(t, []string{"a/b=3", "a/x=3", "c/b=3"}, sorted(e.ran()[:3]), "the session keeps what it had")
	require.Equal(t, []string{"a/b=4", "c/b=4"}, sorted(e.ran()[3:]))
}

func TestWithoutMemoryThereIsOneSession(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	c := newClient(t, b.URL, e, func(o *Options) { o.Dir = "" })
	startWith(t, c, e, filter("a/x/#", 1), filter("a/+/b", 1))
	require.Equal(t, 1, c.Status().Sessions)
	p := newPeer(t, b.URL)
	p.publish("a/x/b", 1, false, "both")
	p.publish("a/y/b", 1, false, "one")
	eventually(t, "2 messages", func() bool { return len(e.ran()) == 2 })
}

func TestSubscribeLive(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	c := newClient(t, b.URL, e)
	startWith(t, c, e)
	p := newPeer(t, b.URL)
	require.NoError(t, c.Subscribe(context.Background(), []drivers.Filter{filter("one", 1), filter("two", 1)}))
	p.publish("one", 1, false, "1")
	p.publish("two", 1, false, "1")
	require.NoError(t, c.Subscribe(context.Background(), []drivers.Filter{filter("two", 1)}))
	p.publish("one", 1, false, "2")
	p.publish("two", 1, false, "2")
	eventually(t, "3 messages", func() bool { return len(e.ran()) == 3 })
	require.Equal(t, []string{"one=1", "two=1", "two=2"}, e.ran())

	require.ErrorContains(t, c.Subscribe(context.Background(), []drivers.Filter{filter("a/#/b", 1)}), "a/#/b")
	require.ErrorContains(t, c.Subscribe(context.Background(), []drivers.Filter{filter("a", 3)}), "QoS 3")
}

// secretive is a broker's rule: everybody may do everything but under secret.
type secretive struct{ mochi.HookBase }

func (*secretive) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}
func (*secretive) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*secretive) OnACLCheck(_ *mochi.Client, topic string, _ bool) bool {
	return !strings.HasPrefix(topic, "secret/")
}

// Mosquitto 2.0 grants every subscription and filters later, so the broker that refuses is another one.
func TestRefusedFilterIsNamedAndTheOthersWork(t *testing.T) {
	server := mochi.New(&mochi.Options{InlineClient: true, Logger: quiet()})
	require.NoError(t, server.AddHook(new(secretive), nil))
	listener := listeners.NewTCP(listeners.Config{ID: "tcp", Address: "127.0.0.1:0"})
	require.NoError(t, server.AddListener(listener))
	require.NoError(t, server.Serve())
	defer server.Close()

	e := newEngine()
	c := newClient(t, "tcp://"+listener.Address(), e)
	stop := startWith(t, c, e, filter("open/#", 1))
	want := []drivers.Filter{filter("open/#", 1), filter("secret/#", 1)}
	err := c.Subscribe(context.Background(), want)
	require.ErrorContains(t, err, "secret/#")
	require.NotContains(t, err.Error(), "open/#")
	require.Equal(t, []string{"secret/#"}, c.Status().Refused)
	require.ErrorContains(t, c.Subscribe(context.Background(), want), "secret/#", "it is asked for again")
	require.NoError(t, server.Publish("open/x", []byte("1"), false, 1))
	eventually(t, "the other filter's message", func() bool { return len(e.ran()) == 1 })

	stop()
	start(t, c, e)
	eventually(t, "connected again", func() bool { return c.Connected() && c.Status().Connects == 2 })
	require.Equal(t, []string{"secret/#"}, c.Status().Refused)
}

func TestRefusals(t *testing.T) {
	b := mosquittotest.Start(t, mosquittotest.Options{Users: map[string]string{"gw": "right-secret"}})
	file := func(t *testing.T, password string) string {
		name := filepath.Join(t.TempDir(), "pw")
		require.NoError(t, os.WriteFile(name, []byte(password+"\n"), 0o600))
		return name
	}
	run := func(t *testing.T, change func(*Options)) error {
		e := newEngine()
		return newClient(t, b.URL, e, change).Run(context.Background(), e.emit)
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no user", func(*Options) {}, "set broker.username and broker.password_file"},
		{"wrong password", func(o *Options) { o.Username, o.PasswordFile = "gw", file(t, "wrong-secret") }, `refuses the user "gw"`},
		{"in the url", func(o *Options) { o.URL = "tcp://gw:wrong-secret@" + b.Address }, `refuses the user "gw"`},
		{"no file", func(o *Options) { o.Username, o.PasswordFile = "gw", "/no/such/file" }, "broker.password_file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := run(t, c.change)
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, drivers.ErrNotConnected)
			var refused *RefusedError
			require.ErrorAs(t, err, &refused)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	for _, c := range []func(*Options){
		func(o *Options) { o.Username, o.PasswordFile = "gw", file(t, "right-secret") },
		func(o *Options) { o.URL = "mqtt://gw:right-secret@" + b.Address },
	} {
		e := newEngine()
		cl := newClient(t, b.URL, e, c)
		stop := startWith(t, cl, e)
		require.NotContains(t, cl.Status().URL, "secret")
		stop()
	}
}

func TestNobodyListens(t *testing.T) {
	e := newEngine()
	c := newClient(t, "tcp://127.0.0.1:1", e)
	err := c.Run(context.Background(), e.emit)
	require.ErrorIs(t, err, drivers.ErrNotConnected)
	require.ErrorContains(t, err, "tcp://127.0.0.1:1")
	require.False(t, c.Connected())
	require.NotEmpty(t, c.Status().LastError)
	_, err = c.Publish(context.Background(), drivers.Message{Topic: "a"})
	require.ErrorIs(t, err, drivers.ErrNotConnected)
}

// What accepts connections and says nothing is named while it is waited for, and afterwards.
func TestSilentListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	e := newEngine()
	c := newClient(t, "tcp://"+ln.Addr().String(), e)
	c.patience = slowAnswer + slowAnswer/2
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background(), e.emit) }()
	eventually(t, "a reason while it waits", func() bool { return c.Status().LastError != "" })
	require.Contains(t, c.Status().LastError, "no answer for 2s")
	err = <-ended
	require.ErrorIs(t, err, drivers.ErrNotConnected)
	require.ErrorContains(t, err, "the broker has said nothing for 3s")
	require.NotContains(t, err.Error(), "EOF")
	require.NotContains(t, c.Status().LastError, "not connected", "the status says so already")
}

// A broker that falls silent without closing its connections is noticed.
func TestFrozenBroker(t *testing.T) {
	b := mosquittotest.Start(t)
	proxy := newProxy(t, b.Address)
	e := newEngine()
	c := newClient(t, "tcp://"+proxy.addr, e)
	startWith(t, c, e, filter("f/#", 1))
	proxy.freeze(true)
	eventually(t, "the connection is given up", func() bool { return !c.Connected() })
	require.Contains(t, c.Status().LastError, "has said nothing")
	proxy.cut()
	proxy.freeze(false)
	eventually(t, "connected again", c.Connected)
	newPeer(t, b.URL).publish("f/x", 1, false, "1")
	eventually(t, "the message", func() bool { return len(e.ran()) == 1 })
}

// While the engine has no room, nothing is read, for far longer than the keep-alive; the connection lives, and publishes go on.
func TestBackPressureKeepsTheConnection(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	e.full = true
	c := newClient(t, b.URL, e, func(o *Options) { o.KeepAlive = time.Second })
	startWith(t, c, e, filter("b/#", 0))
	p := newPeer(t, b.URL)
	const n = 2000
	for i := range n {
		p.publish("b/x", 0, false, strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	// The broker looks every five seconds and gives up who has said nothing for one and a half times the keep-alive. The test waits for
	// publishes to come back, one every 200 ms, for longer than that.
	for range 40 {
		r, err := c.Publish(context.Background(), drivers.Message{Topic: "elsewhere", QoS: 1})
		require.NoError(t, err)
		require.NoError(t, r.Wait(context.Background()))
		<-time.After(200 * time.Millisecond)
	}
	require.True(t, c.Connected())
	e.setFull(false)
	eventually(t, "everything", func() bool { return len(e.ran()) == n })
	require.EqualValues(t, 1, c.Status().Connects)
}

func TestTooLargeIsDroppedAndSettled(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	c := newClient(t, b.URL, e)
	startWith(t, c, e, filter("t/#", 2))
	p := newPeer(t, b.URL)
	for qos := range byte(3) {
		p.publish("t/x", qos, false, strings.Repeat("x", maxPacket))
		p.publish("t/x", qos, false, fmt.Sprint(qos))
	}
	eventually(t, "the small ones", func() bool { return len(e.ran()) == 3 })
	require.EqualValues(t, 3, c.Status().TooLarge)
	require.EqualValues(t, 1, c.Status().Connects)
}
