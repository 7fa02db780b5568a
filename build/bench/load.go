package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	readyTimeout = 60 * time.Second // for a subject to answer for the first time
	drainTimeout = 20 * time.Second // for the last answers, after the last one that came
)

// load sends events and takes the answers, each on a connection of its own.
type load struct {
	out, in mqtt.Client
	keys    int
	gap     time.Duration

	mu    sync.Mutex // guards what follows
	sent  []sending  // by sequence number
	last  time.Time  // when the last answer came
	ready bool       // a probe was answered
}

// sending is one event.
type sending struct {
	at      time.Time
	took    time.Duration // until the first answer
	answers int
}

func connect(url string, o options) (*load, error) {
	l := &load{keys: o.Keys, gap: time.Second / time.Duration(o.Rate)}
	var err error
	if l.out, err = client(url); err != nil {
		return nil, err
	}
	if l.in, err = client(url); err != nil {
		l.out.Disconnect(0)
		return nil, err
	}
	t := l.in.Subscribe("bench/out", 1, l.answer)
	if !t.WaitTimeout(readyTimeout) || t.Error() != nil {
		l.close()
		return nil, fmt.Errorf("subscribing bench/out: %w", t.Error())
	}
	return l, nil
}

// client connects to a broker that may be about to start.
func client(url string) (mqtt.Client, error) {
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(50 * time.Millisecond) {
		c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID(fmt.Sprintf("load-%d", rand.Uint64())).
			SetAutoReconnect(false))
		t := c.Connect()
		if t.Wait(); t.Error() == nil {
			return c, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("connecting to %s: %w", url, t.Error())
		}
	}
}

func (l *load) close() {
	l.out.Disconnect(100)
	l.in.Disconnect(100)
}

// answer counts an answer.
func (l *load) answer(_ mqtt.Client, m mqtt.Message) {
	now := time.Now()
	var e event
	if json.Unmarshal(m.Payload(), &e) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	if e.Seq < 0 {
		l.ready = true
		return
	}
	if e.Seq >= int64(len(l.sent)) {
		return
	}
	s := &l.sent[e.Seq]
	if s.answers++; s.answers == 1 {
		s.took = now.Sub(s.at)
	}
}

// waitReady sends probes until one is answered.
func (l *load) waitReady(ended <-chan struct{}) error {
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); {
		l.publish(-1)
		select {
		case <-ended:
			return errors.New("it ended before it answered")
		case <-time.After(100 * time.Millisecond):
		}
		l.mu.Lock()
		ready := l.ready
		l.mu.Unlock()
		if ready {
			return nil
		}
	}
	return fmt.Errorf("no answer within %v", readyTimeout)
}

func (l *load) publish(seq int64) {
	e := event{Seq: seq}
	if l.keys > 0 && seq >= 0 {
		e.Key = int(seq) % l.keys
	}
	b, _ := json.Marshal(e)
	l.out.Publish("bench/in", 1, false, b)
}

// next is the sequence number of the next event.
func (l *load) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent)
}

// send sends at an even rate. What was late is made up for, so that the rate holds.
func (l *load) send(d time.Duration) {
	start := time.Now()
	for n := time.Duration(0); n*l.gap < d; n++ {
		if wait := time.Until(start.Add(n * l.gap)); wait > 0 {
			time.Sleep(wait)
		}
		l.mu.Lock()
		seq := len(l.sent)
		l.sent = append(l.sent, sending{at: time.Now()})
		l.mu.Unlock()
		l.publish(int64(seq))
	}
}

// drain waits until every event has its answer, or none has come for long.
func (l *load) drain() {
	for asked := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		l.mu.Lock()
		missing := false
		for i := len(l.sent) - 1; i >= 0 && !missing; i-- {
			missing = l.sent[i].answers == 0
		}
		last := l.last
		l.mu.Unlock()
		if last.Before(asked) {
			last = asked
		}
		if !missing || time.Since(last) > drainTimeout {
			return
		}
	}
}
