// Package mqttdevice makes devices of MQTT topics: a plug behind Zigbee2MQTT, a meter that publishes, a valve that listens.
//
//	heater:  {mqtt: {topic: meter/1/json, field: power, write: meter/1/set}}
//
// It has no connection of its own. The gateway routes the messages of the topic as the device's readings, with the
// acknowledgement and order of the message, and publishes what is written.
package mqttdevice

import (
	"fmt"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// config is what stands under mqtt.
type config struct {
	Topic yamlfile.Node `yaml:"topic"`
	Field string        `yaml:"field"`
	Write yamlfile.Node `yaml:"write"`
}

// Kind is the kind "mqtt".
func Kind() drivers.Kind {
	return drivers.Kind{Name: "mqtt", Doc: "a device behind an MQTT topic", New: newDevice}
}

func newDevice(name string, decode func(into any) error, _ drivers.Env) (*drivers.Device, error) {
	var c config
	if err := decode(&c); err != nil {
		return nil, err
	}
	feed := &drivers.Feed{Field: c.Field}
	for _, part := range []struct {
		node  yamlfile.Node
		into  *string
		check func(string) error
	}{{c.Topic, &feed.Topic, topic.CheckFilter}, {c.Write, &feed.Write, checkWrite}} {
		if part.node.Kind() == yamlfile.Null {
			continue
		}
		if err := part.node.Decode(part.into); err != nil {
			return nil, err
		}
		if err := part.check(*part.into); err != nil {
			return nil, part.node.Wrap(err)
		}
	}
	switch {
	case feed.Topic == "" && feed.Write == "":
		return nil, fmt.Errorf("an mqtt device has a topic to read, a topic to write, or both, such as {topic: meter/1, write: meter/1/set}")
	case feed.Topic == "" && feed.Field != "":
		return nil, fmt.Errorf("field belongs to a topic to read")
	case feed.Topic != "" && feed.Write != "" && topic.Match(feed.Topic, feed.Write):
		return nil, fmt.Errorf("what is written to %s would come back as a reading of %s; choose topics that do not meet", feed.Write, feed.Topic)
	}
	return &drivers.Device{Name: name, Kind: "mqtt", Feed: feed}, nil
}

func checkWrite(name string) error {
	if topic.System(name) {
		return fmt.Errorf("%q is under $, where nobody but the broker publishes", name)
	}
	return topic.CheckName(name)
}
