// Package drivers is the contract between the gateway and what hangs on it.
//
// A Source produces events: it is run, and it emits. An Actuator takes values, a Reader gives the present one. A
// Device is a named bundle of those, made by a Kind from its part of the configuration. The one list of kinds is in
// drivers/all; adding one is a folder and a line there.
//
// Sources push, and do not wait to be asked: at a thousand events a second every hand-over between goroutines costs
// more than the work itself, so an event is carried from the goroutine that received it as far as it can go.
package drivers

import (
	"context"
	"errors"
	"fmt"

	"github.com/perigee-iot/perigee/internal/event"
)

// ErrNotConnected is what Source.Run, Reader.Read and Actuator.Write wrap when the far side is not there now and may be later.
// The gateway reacts with a back-off and another try; drivers have no retry loops of their own.
var ErrNotConnected = errors.New("not connected")

// ErrRefused is what Delivery.Ack gets for an event that can never be accepted (too large, a topic that is not
// UTF-8): the source settles it, so that it is not sent for ever, and says so to the sender if its protocol can. It is also what
// Actuator.Write wraps for a value that the device will never take: the gateway drops that write, and goes on with what waits behind it.
var ErrRefused = errors.New("refused")

// Delivery is one event on its way in.
type Delivery struct {
	// Event is what happened. The engine gives it its sequence, and the time and the identity that it does not bring.
	Event *event.Event

	// Ack settles the event at its source. It is called at most once, from any goroutine, and must not block: with nil once the
	// event has been accepted for good, with an error that wraps ErrRefused if it never will be. If it is not called
	// before the source ends, the event was not accepted. Nil for a source that cannot redeliver.
	Ack func(err error)

	// Mark names this delivery among those that the sender may repeat because it has not seen our acknowledgement:
	// for MQTT the session and the packet id. Empty: the sender never repeats. The engine keeps the marks.
	Mark string
	// Again says that the sender itself calls this a repetition (MQTT: DUP). Only such a one is ever dropped.
	Again bool

	// Refused is why the source itself has turned the event away, and settled it: "" for one that it offers. The engine shows such an
	// event to people, and nothing else; its Data may be missing.
	Refused string
}

// Emit takes a delivery from a source. It returns when the gateway has taken charge of it (not yet accepted it: that is
// Ack), and blocks while there is no room: that is the back-pressure. An error means that the gateway is stopping.
type Emit func(ctx context.Context, d Delivery) error

// Source produces events.
type Source interface {
	// Run produces events until ctx ends (then it returns nil) or it cannot go on. An error that wraps
	// ErrNotConnected makes the caller run it again after a back-off; so does any other, which is also counted as a fault of the
	// source. Run is called by one goroutine at a time and leaves no goroutine behind.
	Run(ctx context.Context, emit Emit) error
}

// Fields is a reading: names and units are Zigbee2MQTT's (temperature in °C, humidity in %, pressure in hPa,
// illuminance in lx, power in W, energy in kWh, battery in %, occupancy, contact, action). Values are nil, bool, float64 or string.
type Fields map[string]any

// Reader gives the present reading of a device.
type Reader interface {
	Read(ctx context.Context) (Fields, error)
}

// Actuator takes a value: bool, float64, string or nil. One that it will never take is an error that wraps ErrRefused; any other
// error makes the gateway write the value again.
type Actuator interface {
	Write(ctx context.Context, value any) error
}

// Feed makes a device out of MQTT messages: the engine routes them, so that acknowledgement and order are those of the message.
type Feed struct {
	Topic string // filter whose messages are this device's readings
	Field string // the field that is its value; empty: the whole object
	Write string // topic to publish a written value to; empty: not writable
}

// Device is one named thing. Nil parts are what it cannot do.
type Device struct {
	Name     string
	Kind     string // "sim", "host", "mqtt", "gpio"
	Source   Source
	Reader   Reader
	Actuator Actuator
	Feed     *Feed
	// Peers is the other devices that it reads through Env.Peer, by the key of its configuration that names them. A configuration without one of
	// them, or with one that has no Reader, is wrong.
	Peers map[string]string
}

// Set is the devices of a configuration, by name.
type Set map[string]*Device

// Kind makes devices of one sort.
type Kind struct {
	Name string // the key under the device's name in the configuration: "sim"
	Doc  string // one line for people
	// New makes a device without touching hardware yet. decode fills a struct from the device's part of the
	// configuration, with unknown keys refused and the file and line in its error.
	New func(name string, decode func(into any) error, env Env) (*Device, error)
}

// Env is what a driver may use of its surroundings.
type Env struct {
	// Peer finds another device by name, for drivers whose devices act on one another. It is called from Run, when all devices exist.
	Peer func(name string) (*Device, bool)
	// Dir is the directory of the configuration file; relative paths start there.
	Dir string
}

// Filter is one MQTT subscription.
type Filter struct {
	Topic string
	QoS   byte
	// Watched says that what matches only this filter is nothing for a function now: people are to see it, and why. What is
	// retained is emitted once the filter is one that functions want. Only a broker in the process gets such filters.
	Watched bool
}

// Message is one MQTT message to publish.
type Message struct {
	ID      string // the action's identity; on the embedded broker the MQTT 5 user property "id"
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Receipt tells the fate of a publish.
type Receipt interface {
	// Wait returns nil once the message has been delivered for certain, an error if that is not known: then it is sent again.
	Wait(ctx context.Context) error
}

// Broker is the local MQTT broker, embedded or external: a source of messages, and where publishes go.
type Broker interface {
	Source
	// Subscribe makes filters the set of subscriptions and returns once the broker has acknowledged what is new. While
	// there is no connection it keeps the set for when there is one and returns an error that wraps ErrNotConnected.
	Subscribe(ctx context.Context, filters []Filter) error
	// Publish sends a message, in order with the other calls. It may return before the message has been delivered.
	Publish(ctx context.Context, m Message) (Receipt, error)
	// Connected says whether messages flow.
	Connected() bool
	// InProcess says that what is published does not come back through Run: the engine itself must route it.
	InProcess() bool
}

// Marks is what a source may tell the engine about the deliveries that it marked.
type Marks interface {
	// Forget drops marks: their senders have seen the acknowledgement. An empty list with a session drops all of the
	// session's, since the sender has forgotten it.
	Forget(session string, marks []string)
}

// Mark builds the mark of an MQTT delivery.
func Mark(session string, packetID uint16) string {
	return fmt.Sprintf("%s\x00%05d", session, packetID)
}
