package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/perigee-iot/perigee/gateway/api"
)

const broker = "tcp://127.0.0.1:1883"

// gateway is a whole gateway with the function fill, which sets values and appends a record.
type gateway struct {
	c    *api.Client
	busy atomic.Bool // much waits to be run
}

func newGateway(durability string) (subject, error) {
	config := "/tmp/gateway.yaml"
	text := fmt.Sprintf("id: cut\ndata_dir: %s\nlog: {level: warn, format: text}\nfunctions: {dir: /functions}\nbroker: {listen: [%s]}\n"+
		"api: {socket: /tmp/perigee.sock}\nstore: {durability: %s, profile: small, min_free: 16MiB}\n", dir, broker, durability)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("/perigee", "run", "--config", config)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	g := &gateway{c: api.Dial("/tmp/perigee.sock")}
	for { // what waits in the inbox is accepted, too
		if st, err := g.c.Status(context.Background()); err == nil && st.Ready && st.Events.Waiting == 0 && st.Events.Inbox == 0 {
			go g.watch()
			return g, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the gateway ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// watch holds the senders back while much waits, so that it is the outcomes that fill the store, and not the inbox.
func (g *gateway) watch() {
	for ; ; time.Sleep(100 * time.Millisecond) {
		st, err := g.c.Status(context.Background())
		g.busy.Store(err == nil && st.Events.Waiting > 2*window)
	}
}

// have looks at the state, and whether there are as many records as events.
func (g *gateway) have() (last [len(keys)]int, err error) {
	ctx := context.Background()
	sum := 0
	for i, key := range keys {
		entries, err := g.c.State(ctx, api.StateRef{Function: "fill", Key: &key})
		if err != nil {
			return last, err
		}
		have := map[string]int{}
		for _, e := range entries {
			var v struct{ N int }
			if json.Unmarshal(e.Value, &v.N) != nil && json.Unmarshal(e.Value, &v) != nil {
				fmt.Printf("wrong: %s of %s is %s\n", e.Name, key, e.Value)
			}
			have[e.Name] = v.N
		}
		if have["wrong"] > 0 {
			fmt.Printf("wrong: %d events of %s came out of turn\n", have["wrong"], key)
		}
		last[i] = have["last"]
		sum += last[i]
		whole(key, last[i], func(name string) int { return have[name] })
	}
	streams, err := g.c.Streams(ctx)
	if err != nil {
		return last, err
	}
	for _, s := range streams {
		if s.Name == "fill" && s.Waiting != int64(sum) {
			fmt.Printf("wrong: %d records wait, and %d events were carried out\n", s.Waiting, sum)
		}
	}
	fns, err := g.c.Functions(ctx)
	if err != nil {
		return last, err
	}
	for _, f := range fns {
		if f.State != "active" {
			fmt.Printf("wrong: function %s is %s: %s\n", f.Name, f.State, f.Reason)
		}
	}
	return last, nil
}

func (g *gateway) load(key string, n int, acked func(n int)) error {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(broker).SetClientID(key).SetAutoReconnect(false))
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		return t.Error()
	}
	sent := make(chan mqtt.Token, window)
	go func() {
		for i := n + 1; ; i++ {
			for g.busy.Load() {
				time.Sleep(10 * time.Millisecond)
			}
			sent <- c.Publish("in/"+key, 1, false, fmt.Sprintf(`{"n":%d}`, i))
		}
	}()
	for t := range sent {
		if t.Wait() && t.Error() != nil {
			return t.Error()
		}
		n++
		acked(n)
	}
	return nil
}
