package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers/mqttclient"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

// laterMarks is the engine once there is one.
type laterMarks struct{ e atomic.Pointer[Engine] }

func (m *laterMarks) Forget(session string, list []string) {
	if e := m.e.Load(); e != nil {
		e.Forget(session, list)
	}
}

// A broker gives a session 20 unacknowledged messages. A function that sleeps on all of its events takes none of them from another: what
// waits goes to the inbox, and is acknowledged by that.
func TestASleepingFunctionStopsNobodyOnABroker(t *testing.T) {
	const slow, fast = 60, 300
	far := mosquittotest.Start(t) // with 20 in flight, as it comes
	marks := &laterMarks{}
	client, err := mqttclient.New(mqttclient.Options{URL: far.URL, ClientID: "gw", Dir: t.TempDir(), Marks: marks, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r := openRig(t, t.TempDir(), func(o *Options) { o.Broker = client })
	marks.e.Store(r.e)
	wake := make(chan struct{})
	var slept atomic.Int64
	r.fnLater("name: sleepy\ntriggers: [{mqtt: slow/+}]\nkey: \"{topic}\"\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		<-wake // for as long as all others need, which is longer than any time that one could name
		slept.Add(1)
		return ok()
	})
	r.fnLater("name: lively\ntriggers: [{mqtt: fast/+}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(functions.Effect{Kind: functions.IncrState, Name: "n", By: 1})
	})
	r.start()
	ctx, cancel := context.WithCancel(context.Background())
	var run atomic.Pointer[error]
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := client.Run(ctx, r.e.Offer)
		run.Store(&err)
	}()
	defer func() { cancel(); <-ended }()
	r.wait("the connection", client.Connected)

	sender := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(far.URL).SetClientID("sender"))
	token := sender.Connect()
	require.True(t, token.WaitTimeout(time.Minute))
	require.NoError(t, token.Error())
	defer sender.Disconnect(100)
	publish := func(topic string, n int) {
		for i := range n {
			token := sender.Publish(fmt.Sprint(topic, i%30), 1, false, fmt.Sprint(i))
			require.True(t, token.WaitTimeout(time.Minute))
			require.NoError(t, token.Error())
		}
	}
	publish("slow/", slow)
	publish("fast/", fast)
	r.wait("all of the lively one's", func() bool { return r.state("lively", "", "n") == fmt.Sprint(fast) })
	require.Zero(t, slept.Load())
	r.wait("all of the sleepy one's to be safe", func() bool { return r.e.Counts().Inbox == slow })
	close(wake)
	r.wait("the sleepy one", func() bool { return slept.Load() == slow && r.e.Counts().Inbox == 0 })
	require.Empty(t, r.e.Counts().Losses)
	require.Nil(t, run.Load(), "one connection all the time")
}
