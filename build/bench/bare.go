package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/mqttclient"
)

// event and answer are what travels.
type event struct {
	Seq int64 `json:"seq"`
	Key int   `json:"key"`
}

// bare is the reference: what a user would write who needs no gateway. It keeps nothing, restarts nothing, bounds nothing, and loses
// what it has not answered when it dies.
func bare(url string) error {
	lost := make(chan error, 1)
	var client mqtt.Client
	handle := func(_ mqtt.Client, m mqtt.Message) {
		var e event
		if json.Unmarshal(m.Payload(), &e) != nil {
			return
		}
		b, _ := json.Marshal(event{Seq: e.Seq})
		client.Publish("bench/out", 1, false, b) // not waited for: the handler must not block
	}
	client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("bare").
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err }))
	if t := client.Connect(); t.Wait() && t.Error() != nil {
		return t.Error()
	}
	if t := client.Subscribe("bench/in", 1, handle); t.Wait() && t.Error() != nil {
		return t.Error()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case err := <-lost:
		return fmt.Errorf("connection lost: %w", err)
	case <-stop:
		client.Disconnect(100)
		return nil
	}
}

// driver is the same on the gateway's own MQTT driver, with nothing behind it: what is left of the difference is the
// gateway's.
func driver(url string) error {
	c, err := mqttclient.New(mqttclient.Options{URL: url, ClientID: fmt.Sprintf("driver-%d", os.Getpid())})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.Subscribe(ctx, []drivers.Filter{{Topic: "bench/in", QoS: 1}}); !errors.Is(err, drivers.ErrNotConnected) {
		return err
	}
	return c.Run(ctx, func(ctx context.Context, d drivers.Delivery) error {
		var e event
		if json.Unmarshal(d.Event.Data, &e) == nil {
			b, _ := json.Marshal(event{Seq: e.Seq})
			if _, err := c.Publish(ctx, drivers.Message{Topic: "bench/out", QoS: 1, Payload: b}); err != nil {
				return nil // not acknowledged, so that it comes again
			}
		}
		d.Ack(nil)
		return nil
	})
}
