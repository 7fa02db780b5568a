package receiver_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
	"github.com/perigee-iot/perigee/sync/uplink/mqttlink"
	"github.com/perigee-iot/perigee/sync/uplinktest"
)

func options(out string) receiver.Options {
	return receiver.Options{Listen: "tcp://127.0.0.1:0", Out: out, Log: slog.New(slog.DiscardHandler)}
}

// start runs a receiver until stop is called.
func start(t *testing.T, o receiver.Options) (r *receiver.Receiver, stop func()) {
	r, err := receiver.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			assert.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	return r, stop
}

func connect(t *testing.T, addr, user, password string) (paho.Client, error) {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(t.Name()).SetProtocolVersion(4).
		SetUsername(user).SetPassword(password).SetAutoReconnect(false).SetConnectTimeout(5 * time.Second))
	tok := c.Connect()
	tok.Wait()
	t.Cleanup(func() { c.Disconnect(50) })
	return c, tok.Error()
}

func rec(epoch string, seq uint64) *record.Record {
	return &record.Record{Identity: record.Identity{Gateway: "gw", Stream: "s", Epoch: epoch, Sequence: seq},
		Function: "f", Data: fmt.Appendf(nil, `{"n":%d}`, seq)}
}

func gap(epoch string, from, to uint64) *record.Record {
	r := rec(epoch, to)
	r.Function, r.Data = "", nil
	r.Gap = &record.Gap{From: from, To: to, Reasons: map[string]uint64{record.Full: to - from + 1}}
	return r
}

func batch(recs ...*record.Record) []byte {
	b := []byte{'['}
	for i, r := range recs {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.Append(b)
	}
	return append(b, ']')
}

// send publishes a batch and says whether it was acknowledged.
func send(t *testing.T, r *receiver.Receiver, payload []byte) bool {
	c, err := connect(t, r.Addr(), "", "")
	require.NoError(t, err)
	defer c.Disconnect(50)
	tok := c.Publish("perigee/gw/streams/s", 1, false, payload)
	require.True(t, tok.WaitTimeout(time.Minute))
	return tok.Error() == nil
}

func lines(t *testing.T, path string) (seqs []string) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for l := range bytes.Lines(b) {
		r, err := record.Decode(l)
		require.NoError(t, err)
		seqs = append(seqs, fmt.Sprintf("%s%d", r.Epoch, r.Sequence))
	}
	return seqs
}

func TestEachRecordOnceAndInOrder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "records.ndjson")
	r, stop := start(t, options(out))
	var got []uint64
	cancel := r.Subscribe(func(x record.Record) { got = append(got, x.Sequence) })
	require.True(t, send(t, r, batch(rec("e", 1), rec("e", 2))))
	assert.Equal(t, []string{"e1", "e2"}, lines(t, out), "it is in the file before it is acknowledged")
	require.True(t, send(t, r, batch(rec("e", 2), rec("e", 3))))
	require.True(t, send(t, r, batch(rec("e", 1))))
	cancel()
	stop()
	assert.Equal(t, []uint64{1, 2, 3}, got)
	assert.Equal(t, []string{"e1", "e2", "e3"}, lines(t, out))

	r, _ = start(t, options(out))
	assert.EqualValues(t, 3, r.Stats().Records, "a restart knows what the file has")
	require.True(t, send(t, r, batch(rec("e", 2), rec("e", 3), rec("e", 4))))
	s := r.Stats()
	assert.EqualValues(t, 4, s.Records)
	assert.EqualValues(t, 2, s.Duplicates)
	assert.Zero(t, s.Missing)
	assert.Equal(t, []string{"e1", "e2", "e3", "e4"}, lines(t, out))
	require.Len(t, s.Streams, 1)
	assert.EqualValues(t, 5, s.Streams[0].Next)
}

func TestWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		in   []*record.Record
		want receiver.StreamStats
	}{
		"nothing":            {[]*record.Record{rec("e", 1), rec("e", 2)}, receiver.StreamStats{Records: 2, Next: 3}},
		"a hole":             {[]*record.Record{rec("e", 1), rec("e", 5)}, receiver.StreamStats{Records: 2, Missing: 3, Next: 6}},
		"the beginning":      {[]*record.Record{rec("e", 5)}, receiver.StreamStats{Records: 1, Earlier: 4, Next: 6}},
		"explained":          {[]*record.Record{rec("e", 1), gap("e", 2, 4), rec("e", 5)}, receiver.StreamStats{Records: 2, Gaps: 1, Explained: 3, Next: 6}},
		"a gap that grew":    {[]*record.Record{rec("e", 1), gap("e", 1, 4), gap("e", 1, 6)}, receiver.StreamStats{Records: 1, Gaps: 2, Explained: 5, Next: 7}},
		"a gap again":        {[]*record.Record{rec("e", 1), gap("e", 2, 4), gap("e", 2, 4)}, receiver.StreamStats{Records: 1, Gaps: 1, Explained: 3, Duplicates: 1, Next: 5}},
		"a gap, but more":    {[]*record.Record{rec("e", 1), gap("e", 4, 5)}, receiver.StreamStats{Records: 1, Gaps: 1, Missing: 2, Explained: 2, Next: 6}},
		"explained later":    {[]*record.Record{rec("e", 1), rec("e", 5), gap("e", 2, 4)}, receiver.StreamStats{Records: 2, Gaps: 1, Explained: 3, Next: 6}},
		"explained partly":   {[]*record.Record{rec("e", 1), rec("e", 9), gap("e", 4, 5)}, receiver.StreamStats{Records: 2, Gaps: 1, Missing: 5, Explained: 2, Next: 10}},
		"late":               {[]*record.Record{rec("e", 1), rec("e", 4), rec("e", 3), rec("e", 3)}, receiver.StreamStats{Records: 3, Late: 1, Missing: 1, Duplicates: 1, Next: 5}},
		"a gap first":        {[]*record.Record{gap("e", 1, 4), rec("e", 5)}, receiver.StreamStats{Records: 1, Gaps: 1, Explained: 4, Next: 6}},
		"the largest of all": {[]*record.Record{rec("e", 1), gap("e", 2, 1<<62)}, receiver.StreamStats{Records: 1, Gaps: 1, Explained: 1<<62 - 1, Next: 1<<62 + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			r, stop := start(t, options(out))
			require.True(t, send(t, r, batch(c.in...)))
			c.want.Gateway, c.want.Stream, c.want.Epoch = "gw", "s", "e"
			assert.Equal(t, []receiver.StreamStats{c.want}, r.Stats().Streams)
			stop()
			r, _ = start(t, options(out))
			c.want.Duplicates = 0 // they are not in the file
			assert.Equal(t, []receiver.StreamStats{c.want}, r.Stats().Streams, "the file tells the same")
		})
	}
}

func TestEpochsAndClashes(t *testing.T) {
	r, _ := start(t, options(""))
	require.True(t, send(t, r, batch(rec("e1", 1), rec("e1", 2), rec("e2", 1), rec("e1", 2), rec("e2", 2))))
	s := r.Stats()
	assert.Empty(t, s.Clashes, "a new epoch is a new count, and a repeat of the old one is only a repeat")
	assert.EqualValues(t, 4, s.Records)
	assert.EqualValues(t, 1, s.Duplicates)
	require.True(t, send(t, r, batch(rec("e1", 3))))
	assert.Equal(t, []string{"gw"}, r.Stats().Clashes)
}

func TestATornLastLineIsCutOff(t *testing.T) {
	whole := append(rec("e", 1).Append(nil), '\n')
	for _, n := range []int{1, 10, len(whole) / 2, len(whole) - 1} {
		out := filepath.Join(t.TempDir(), "out")
		second := append(rec("e", 2).Append(nil), '\n')
		require.NoError(t, os.WriteFile(out, append(bytes.Clone(whole), second[:n]...), 0o600))
		r, stop := start(t, options(out))
		assert.EqualValues(t, 1, r.Stats().Records)
		require.True(t, send(t, r, batch(rec("e", 2))))
		stop()
		assert.Equal(t, []string{"e1", "e2"}, lines(t, out))
	}
}

func TestAFileThatIsNotOursIsNotTouched(t *testing.T) {
	for name, content := range map[string]string{
		"text":           "root:x:0:0\n",
		"no newline":     "something else",
		"garbage inside": string(rec("e", 1).Append(nil)) + "\ngarbage\n" + string(rec("e", 2).Append(nil)) + "\n",
		"a long line":    strings.Repeat("x", 2<<20),
	} {
		out := filepath.Join(t.TempDir(), "out")
		require.NoError(t, os.WriteFile(out, []byte(content), 0o600))
		_, err := receiver.New(options(out))
		require.ErrorContains(t, err, out, name)
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		assert.Equal(t, content, string(b))
	}
}

func TestTwoReceiversDoNotShareAFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	start(t, options(out))
	_, err := receiver.New(options(out))
	require.ErrorContains(t, err, "another receiver")
}

// A batch that cannot be written is not acknowledged, and comes again when it can.
func TestADiskThatIsFull(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r, stop := start(t, options(out))
	require.True(t, send(t, r, batch(rec("e", 1))))
	restore := limitFileSize(t, out)
	require.False(t, send(t, r, batch(rec("e", 2), rec("e", 3))))
	restore()
	s := r.Stats()
	assert.EqualValues(t, 1, s.Failed)
	assert.EqualValues(t, 1, s.Records, "nothing of it counts")
	require.True(t, send(t, r, batch(rec("e", 2), rec("e", 3))))
	stop()
	assert.Equal(t, []string{"e1", "e2", "e3"}, lines(t, out))
}

// limitFileSize makes writes fail in the middle of the next record.
func limitFileSize(t *testing.T, out string) (restore func()) {
	info, err := os.Stat(out)
	require.NoError(t, err)
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	tight := old
	tight.Cur = uint64(info.Size()) + 100
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight))
	return func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)) }
}

func TestNonsenseHarmsNothing(t *testing.T) {
	r, _ := start(t, options(filepath.Join(t.TempDir(), "out")))
	foreign := rec("e", 1)
	foreign.Gateway = "other"
	for _, in := range [][]byte{nil, []byte("x"), []byte("[1]"), batch(foreign), bytes.Repeat([]byte("["), 1e6)} {
		require.True(t, send(t, r, in), "it is acknowledged, since it will never make sense")
	}
	require.True(t, send(t, r, batch(rec("e", 1))))
	s := r.Stats()
	assert.EqualValues(t, 5, s.Refused)
	assert.EqualValues(t, 1, s.Records)
}

func TestListenAndPassword(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "tcp://0.0.0.0:0", "tcp://:0", "http://127.0.0.1:0", "tcp://127.0.0.1"} {
		o := options("")
		o.Listen = listen
		_, err := receiver.New(o)
		require.ErrorContains(t, err, "listen: ", listen)
	}
	o := options("")
	o.Username, o.Password = "gw", "s3cret"
	r, _ := start(t, o)
	_, err := connect(t, r.Addr(), "gw", "wrong")
	require.Error(t, err)
	_, err = connect(t, r.Addr(), "gw", "s3cret")
	require.NoError(t, err)
}

func TestOthersTalkThroughIt(t *testing.T) {
	r, _ := start(t, options(""))
	c, err := connect(t, r.Addr(), "", "")
	require.NoError(t, err)
	got := make(chan string, 4)
	c.Subscribe("#", 1, func(_ paho.Client, m paho.Message) { got <- m.Topic() }).Wait()
	c.Publish("perigee/gw/functions/f/desired", 1, false, "x").Wait()
	assert.Equal(t, "perigee/gw/functions/f/desired", <-got)
	c.Publish("perigee/gw/streams/s", 1, false, batch(rec("e", 1))).Wait()
	assert.Equal(t, "perigee/gw/streams/s", <-got)
}

// The whole way: a gateway's streams, its uplink, and a receiver that is stopped and started in between.
func TestWithAGateway(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	o := options(out)
	r, stop := start(t, o)
	o.Listen = "tcp://" + r.Addr()
	link, err := mqttlink.New(mqttlink.Options{URL: o.Listen, Gateway: "gw"})
	require.NoError(t, err)
	b := uplinktest.NewBox(t)
	b.Fill(2000, "a", "b")
	u, end := b.Start(link)
	for i := range 3 {
		uplinktest.Until(t, func() bool { return r.Stats().Records >= int64(800*(i+1)) })
		stop()
		r, stop = start(t, o)
	}
	b.Drain(u)
	end()
	s := r.Stats()
	assert.EqualValues(t, 4000, s.Records)
	assert.Zero(t, s.Missing+s.Late+s.Earlier+s.Refused)
	stop()
	next := map[string]uint64{"a": 1, "b": 1}
	data, err := os.ReadFile(out)
	require.NoError(t, err)
	for l := range bytes.Lines(data) {
		x, err := record.Decode(l)
		require.NoError(t, err)
		require.Equal(t, next[x.Stream], x.Sequence)
		next[x.Stream]++
	}
	assert.Equal(t, map[string]uint64{"a": 2001, "b": 2001}, next)
}
