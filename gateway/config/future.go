package config

import (
	"errors"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// refuseFuture names what a file asks for and this version does not have, so that nobody takes it for a typing mistake.
func refuseFuture(root yamlfile.Node) error {
	var errs []error
	refuse := func(n yamlfile.Node, keys ...string) {
		for _, k := range keys {
			if child, ok := n.Child(k); ok {
				errs = append(errs, child.Errorf("not in this version"))
			}
		}
	}
	refuse(root, "remote", "webhooks", "console")
	refuse(root.At("functions"), "trust")
	if links, ok := root.Child("uplinks"); ok {
		for _, link := range links.Items() {
			refuse(link, "https", "nats", "budget")
		}
	}
	return errors.Join(errs...)
}

// futureKinds are the kinds of devices that are planned.
func futureKinds() []string {
	return []string{"gpio", "zigbee2mqtt", "shelly", "tasmota", "i2c", "onewire", "modbus", "bluetooth", "serial"}
}
