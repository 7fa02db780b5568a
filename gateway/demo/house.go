package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// house is what hangs on the gateway's broker beside the proof: a few sensors that publish as Zigbee2MQTT does, and a subscriber that
// listens to what the function "proof" publishes.
type house struct {
	client mqtt.Client
	ledger *ledger
	run    string
}

const houseID = "demo-house"

func newHouse(addr, run string, l *ledger) *house {
	h := &house{ledger: l, run: run}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(houseID).
		SetCleanSession(false).SetKeepAlive(keepAlive).SetConnectTimeout(mqttWait).SetWriteTimeout(mqttWait).
		SetConnectRetry(true).SetConnectRetryInterval(200 * time.Millisecond).SetMaxReconnectInterval(500 * time.Millisecond).
		SetOrderMatters(false)
	o.SetDefaultPublishHandler(h.hear)
	o.SetOnConnectHandler(func(c mqtt.Client) { c.Subscribe(proofOut, 1, nil) })
	h.client = mqtt.NewClient(o)
	return h
}

// hear takes a message of the function "proof". Messages of earlier runs, out of the session's queue, do not count.
func (h *house) hear(_ mqtt.Client, m mqtt.Message) {
	var v struct {
		Run string `json:"run"`
		N   uint64 `json:"n"`
		ID  string `json:"_id"`
	}
	if m.Topic() == proofOut && json.Unmarshal(m.Payload(), &v) == nil && v.Run == h.run && v.N > 0 {
		h.ledger.hear(v.N, v.ID)
	}
}

// Run publishes readings until ctx ends: one every 1.2 s, the sensors in turn, which is a pace that people can follow.
func (h *house) Run(ctx context.Context) {
	h.client.Connect()
	defer h.client.Disconnect(100)
	tick := time.NewTicker(1200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			topic, data := reading(i, now)
			if h.client.IsConnectionOpen() {
				h.client.Publish(topic, 0, false, data)
			}
		}
	}
}

// reading is the i-th message of the house.
func reading(i int, now time.Time) (topic string, data []byte) {
	wave := func(low, high float64, period time.Duration) float64 {
		phase := float64(now.UnixNano()%int64(period)) / float64(period)
		v := low + (high-low)*(1-math.Cos(2*math.Pi*phase))/2 + rand.Float64()/4
		return math.Round(v*10) / 10
	}
	switch i % 4 {
	case 0:
		return "zigbee2mqtt/attic", fmt.Appendf(nil, `{"temperature":%.1f,"humidity":%.1f,"battery":87,"linkquality":112}`,
			wave(22, 28.5, 2*time.Minute), wave(38, 52, 3*time.Minute))
	case 1:
		return "zigbee2mqtt/hall", fmt.Appendf(nil, `{"temperature":%.1f,"humidity":%.1f,"battery":64,"linkquality":81}`,
			wave(19, 22, 90*time.Second), wave(41, 47, 2*time.Minute))
	case 2:
		return "zigbee2mqtt/attic", fmt.Appendf(nil, `{"temperature":%.1f,"humidity":%.1f,"battery":87,"linkquality":109}`,
			wave(22, 28.5, 2*time.Minute), wave(38, 52, 3*time.Minute))
	default: // a door has no temperature: a function that wants one is not even woken
		return "zigbee2mqtt/door", fmt.Appendf(nil, `{"contact":%v,"battery":93,"linkquality":77}`, i%8 == 3)
	}
}
