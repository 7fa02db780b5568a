package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// keys counts what is in the broker's spaces of a store.
func keys(t *testing.T, st *store.Store) (retained, sessions int) {
	t.Helper()
	require.NoError(t, st.View(func(r store.Reader) error {
		for space, n := range map[store.Space]*int{store.Retained: &retained, store.Sessions: &sessions} {
			if err := r.Scan(store.NewKey(space), nil, func(_, _ []byte) bool { *n++; return true }); err != nil {
				return err
			}
		}
		return nil
	}))
	return retained, sessions
}

func TestRetainedSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, dir)
	r := start(t, Options{Store: st})
	c := pahoClient(t, r.addr, "pub", nil)
	for i := range 50 {
		ok(t, c.Publish(fmt.Sprint("a/", i), byte(i%3), true, fmt.Sprint("v", i)))
	}
	ok(t, c.Publish("a/7", 1, true, "")) // removed
	ok(t, c.Publish("a/8", 1, true, "newer"))
	r.mustPublish(t, "own", "mine", true)
	r.stop()
	n, _ := keys(t, st)
	require.Equal(t, 50, n)
	require.NoError(t, st.Close())

	st = openStore(t, dir)
	defer st.Close()
	r = start(t, Options{Store: st})
	require.Equal(t, 50, r.Stats().Retained)
	got := map[string]string{}
	sub, _ := dialRaw(t, r.addr, 4, login{id: "s", clean: true})
	sub.subscribe("#", 2)
	for range 50 {
		p := sub.read()
		require.Equal(t, byte(1), p.flags&1, "retain")
		name := string(p.body[2 : 2+p.body[1]])
		rest := p.body[2+p.body[1]:]
		if p.flags>>1&3 > 0 {
			rest = rest[2:]
		}
		got[name] = string(rest)
	}
	sub.quiet()
	require.Equal(t, "newer", got["a/8"])
	require.Equal(t, "v49", got["a/49"])
	require.Equal(t, "mine", got["own"])
	require.NotContains(t, got, "a/7")
}

func TestRetainedForFunctions(t *testing.T) {
	r := start(t, Options{}, "first/#")
	for _, name := range []string{"first/1", "second/1", "second/1/x", "second/2", "third"} {
		r.mustPublish(t, name, "v "+name, true)
	}
	require.Empty(t, r.e.deliveries(), "what is published does not come back")
	topics := func() []string {
		var out []string
		for _, d := range r.e.deliveries() {
			require.True(t, d.Event.Retained)
			require.Nil(t, d.Ack)
			require.Equal(t, "v "+d.Event.Topic, string(d.Event.Data))
			require.Equal(t, "mqtt", d.Event.Source)
			require.Equal(t, event.Message, d.Event.Type)
			out = append(out, d.Event.Topic)
		}
		return out
	}
	require.NoError(t, r.Subscribe(t.Context(), subs([]string{"first/#", "second/#", "second/1/#"})))
	r.e.wait(t, 3)
	require.NoError(t, r.Subscribe(t.Context(), subs([]string{"second/#", "third", "second/1/#"})))
	r.e.wait(t, 4)
	require.Equal(t, []string{"second/1", "second/1/x", "second/2", "third"}, topics())
	require.ErrorContains(t, r.Subscribe(t.Context(), subs([]string{"a/#/b"})), "a/#/b")

	var seen []string
	r.Retained("second/+", func(e *event.Event) bool {
		seen = append(seen, e.Topic)
		return true
	})
	require.Equal(t, []string{"second/1", "second/2"}, seen)
}

func TestWatchedFilters(t *testing.T) {
	r := start(t, Options{})
	r.mustPublish(t, "bl/0", "old", true)
	require.NoError(t, r.Subscribe(t.Context(), []drivers.Filter{{Topic: "bl/#", Watched: true}}))
	c, _ := dialRaw(t, r.addr, 4, login{id: "pub", clean: true})
	c.publish("bl/1", "seen", 1, 1, false)
	c.expect(puback, 1)
	require.Equal(t, []string{"seen"}, r.e.payloads(), "what is retained waits for a function")
	require.NoError(t, r.Subscribe(t.Context(), []drivers.Filter{{Topic: "bl/#"}}))
	require.Equal(t, "old", string(r.e.wait(t, 2)[1].Event.Data))
}

func TestRetainedAreBounded(t *testing.T) {
	r := start(t, Options{})
	for i := range maxRetained + 10 {
		r.mustPublish(t, fmt.Sprint("a/", i), "x", true)
	}
	require.Equal(t, maxRetained, r.Stats().Retained)
	require.EqualValues(t, 10, r.Stats().Refused["retained"])
	r.mustPublish(t, "a/0", "", true)
	r.mustPublish(t, "a/new", "x", true)
	require.Equal(t, maxRetained, r.Stats().Retained)
	big := strings.Repeat("x", DefaultMaxPayload)
	for i := range 100 {
		r.mustPublish(t, fmt.Sprint("a/", i+1), big, true)
	}
	require.LessOrEqual(t, r.serving().retained.bytes, retainedBytes)
	sub, _ := dialRaw(t, r.addr, 4, login{id: "s", clean: true})
	sub.subscribe("a/#", 1)
	for range 1000 {
		require.Equal(t, byte(publish), sub.read().kind)
	}
}

func TestSessionsSurviveARestart(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		dir := t.TempDir()
		st := openStore(t, dir)
		r := start(t, Options{Store: st, Users: someUsers(t)})
		l := login{id: "sub", user: "admin", pw: "root", expiry: 3600, receive: 10}
		c, _ := dialRaw(t, r.addr, version, l)
		require.Equal(t, byte(2), last(c.subscribe("x/#", 2)))
		tmp, _ := dialRaw(t, r.addr, version, login{id: "tmp", clean: true, user: "admin", pw: "root"})
		tmp.subscribe("x/#", 2)
		r.mustPublish(t, "x/1", "taken", false)
		p := c.read()
		c.ack(puback, p.id())
		c.quiet()
		r.mustPublish(t, "x/1", "not acknowledged", false)
		unacked := c.read().id()
		c.Close()
		eventually(t, "it is gone", func() bool { return r.Stats().Clients == 1 })
		const n = 30
		for i := range n {
			r.mustPublish(t, "x/1", fmt.Sprint("offline ", i), false)
		}
		r.stop()
		_, sessions := keys(t, st)
		require.Equal(t, 1+1+n, sessions)
		require.NoError(t, st.Close())

		st = openStore(t, dir)
		defer st.Close()
		r = start(t, Options{Store: st, Users: someUsers(t)})
		require.Equal(t, 1, r.Stats().Sessions)
		c, p = dialRaw(t, r.addr, version, l)
		require.Equal(t, byte(1), p.body[0], "session present")
		for i := range n + 1 {
			p = c.read()
			require.Equal(t, byte(publish), p.kind)
			if i == 0 {
				require.Equal(t, unacked, p.id())
				require.Equal(t, byte(8), p.flags&8, "DUP")
			} else {
				require.True(t, strings.HasSuffix(string(p.body), fmt.Sprint("offline ", i-1)), string(p.body))
			}
			if version == 4 || i >= 9 { // only ten may be on their way
				if version == 5 && i == 9 {
					c.quiet()
				}
				c.ack(puback, p.id())
			}
		}
		r.mustPublish(t, "x/2", "live", false)
		require.Contains(t, string(c.read().body), "live")
	})
}

func TestSessionsThatEndLeaveNothing(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		st := openStore(t, t.TempDir())
		defer st.Close()
		r := start(t, Options{Store: st})
		l := login{id: "sub", expiry: 3600}
		c, _ := dialRaw(t, r.addr, version, l)
		c.subscribe("x/#", 1)
		c.Close()
		for i := range 10 {
			r.mustPublish(t, "x/1", fmt.Sprint(i), false)
		}
		eventually(t, "it is stored", func() bool { _, n := keys(t, st); return n == 11 })
		c, p := dialRaw(t, r.addr, version, login{id: "sub", clean: true})
		require.Zero(t, p.body[0])
		eventually(t, "it is erased", func() bool { _, n := keys(t, st); return n == 0 })
		c.quiet()

		// One that expires.
		c.Close()
		eventually(t, "gone", func() bool { return r.Stats().Sessions == 0 })
		c, _ = dialRaw(t, r.addr, version, l)
		c.subscribe("x/#", 1)
		c.Close()
		eventually(t, "gone", func() bool { return r.Stats().Clients == 0 })
		cl, known := r.serving().mqtt.Clients.Get("sub")
		require.True(t, known)
		(&hook{s: r.serving()}).OnClientExpired(cl)
		require.Empty(t, r.serving().mqtt.Topics.Subscribers("x/1").Subscriptions)
		eventually(t, "it is erased", func() bool { _, n := keys(t, st); return n == 0 })
	})
}

func TestSessionsAreBounded(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	for i := range maxSessions + 20 {
		c, _ := dialRaw(t, r.addr, 4, login{id: fmt.Sprint("s", i)})
		c.send(0xE0, nil)
		c.closed()
		c.Close()
	}
	require.LessOrEqual(t, r.Stats().Sessions, maxSessions)
	require.EqualValues(t, 20, r.Stats().Refused["session"])
	r.stop()
	_, n := keys(t, st)
	require.LessOrEqual(t, n, maxSessions)
}

func TestOfflineQueueIsBounded(t *testing.T) {
	r := start(t, Options{})
	c, _ := dialRaw(t, r.addr, 4, login{id: "sub"})
	c.subscribe("x/#", 1)
	c.Close()
	eventually(t, "gone", func() bool { return r.Stats().Clients == 0 })
	big := strings.Repeat("x", 100<<10)
	for range 200 {
		r.mustPublish(t, "x/1", big, false)
	}
	require.EqualValues(t, 200-21, r.Stats().Dropped)
	c, _ = dialRaw(t, r.addr, 4, login{id: "sub"})
	for range 21 {
		c.ack(puback, c.read().id())
	}
	c.quiet()
	require.Zero(t, r.serving().budget.bytes)
	c.Close()
	eventually(t, "gone", func() bool { return r.Stats().Clients == 0 })
	for range 2 * maxQueued {
		r.mustPublish(t, "x/1", "x", false)
	}
	require.EqualValues(t, 200-21+maxQueued, r.Stats().Dropped)
}

// A subscriber that does not read neither stops those who publish nor fills the memory.
func TestSlowSubscriber(t *testing.T) {
	r := start(t, Options{}, "x/#")
	for i, qos := range []byte{0, 1, 2} {
		c, _ := dialRaw(t, r.addr, 4, login{id: fmt.Sprint("slow", i), clean: true})
		c.subscribe("#", qos)
	}
	p := pahoClient(t, r.addr, "pub", nil)
	big := strings.Repeat("x", 200<<10)
	for range 200 {
		ok(t, p.Publish("x/1", 1, false, big))
	}
	require.Len(t, r.e.deliveries(), 200)
	require.Positive(t, r.Stats().Dropped)
}

func TestUsersThatAreGoneLeaveNoSessions(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st, Users: someUsers(t)})
	c, _ := dialRaw(t, r.addr, 4, login{id: "sub", user: "admin", pw: "root"})
	c.subscribe("#", 1)
	r.stop()
	r = start(t, Options{Store: st})
	require.Zero(t, r.Stats().Sessions)
	r.stop()
	_, n := keys(t, st)
	require.Zero(t, n)
}

func TestUnreadableRecords(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	require.NoError(t, st.Update(func(tx store.Tx) error {
		tx.Put(topicKey("a"), []byte("nonsense"))
		tx.Put(topicKey("b"), nil)
		good := encodePacket(packets.Packet{TopicName: "c", Payload: []byte("x"), FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}})
		tx.Put(topicKey("c"), good)
		tx.Put(topicKey("d"), good[:len(good)-3])
		tx.Put(sessionKey("s").Uint(0), []byte{1, 200})
		tx.Put(sessionKey("s").Uint(9), good)
		tx.Put(sessionKey("orphan").Uint(1), good)
		tx.Put(store.NewKey(store.Sessions).Uint(1), nil)
		return nil
	}))
	r := start(t, Options{Store: st})
	require.Equal(t, 1, r.Stats().Retained)
	require.Zero(t, r.Stats().Sessions)
	require.EqualValues(t, 5, r.Stats().Refused["store"])
	eventually(t, "sessions that cannot be are erased", func() bool { _, n := keys(t, st); return n <= 1 })
}

func TestPacketsKeepTheirShape(t *testing.T) {
	text := rapid.StringN(0, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		pk := packets.Packet{
			FixedHeader:     packets.FixedHeader{Type: byte(rapid.IntRange(1, 15).Draw(t, "type")), Qos: byte(rapid.IntRange(0, 2).Draw(t, "qos")), Retain: rapid.Bool().Draw(t, "retain")},
			ProtocolVersion: byte(rapid.IntRange(3, 5).Draw(t, "version")),
			PacketID:        rapid.Uint16().Draw(t, "id"),
			Created:         rapid.Int64().Draw(t, "created"),
			Expiry:          rapid.Int64().Draw(t, "expiry"),
			Origin:          text.Draw(t, "origin"),
			TopicName:       text.Draw(t, "topic"),
			Payload:         rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
			Properties: packets.Properties{
				PayloadFormatFlag: rapid.Bool().Draw(t, "pf"), PayloadFormat: rapid.Byte().Draw(t, "format"),
				MessageExpiryInterval: rapid.Uint32().Draw(t, "ttl"), ContentType: text.Draw(t, "content"),
				ResponseTopic: text.Draw(t, "response"), CorrelationData: rapid.SliceOf(rapid.Byte()).Draw(t, "correlation"),
			},
		}
		for range rapid.IntRange(0, 3).Draw(t, "users") {
			pk.Properties.User = append(pk.Properties.User, packets.UserProperty{Key: text.Draw(t, "k"), Val: text.Draw(t, "v")})
		}
		data := encodePacket(pk)
		got, err := decodePacket(data)
		require.NoError(t, err)
		require.Equal(t, pk, got)
		cut := rapid.IntRange(0, len(data)-1).Draw(t, "cut")
		_, err = decodePacket(data[:cut])
		require.Error(t, err)
	})
}

// A store that refuses for a while gets everything later.
func TestStoreComesBack(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	c, _ := dialRaw(t, r.addr, 4, login{id: "sub"})
	c.subscribe("x/#", 1)
	c.quiet() // no retained message is on its way
	r.mustPublish(t, "x/1", "v", true)
	eventually(t, "all is stored", func() bool { a, b := keys(t, st); return a == 1 && b == 2 })
	r.stop()
	// What a dropped group would say: all that was thought to be written may not be.
	r = start(t, Options{Store: st})
	k := r.serving().keep
	require.NoError(t, st.Update(func(tx store.Tx) error {
		tx.Delete(topicKey("x/1"))
		tx.Delete(sessionKey("sub").Uint(0))
		tx.Delete(sessionKey("sub").Uint(1))
		return nil
	}))
	k.topic("x/1")
	k.notWritten("sub")
	eventually(t, "all is stored again", func() bool { a, b := keys(t, st); return a == 1 && b == 2 })
}
