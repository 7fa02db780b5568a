// Package all lists every kind of device. There is no registration behind the reader's back: this is the list.
package all

import (
	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/host"
	"github.com/perigee-iot/perigee/drivers/mqttdevice"
	"github.com/perigee-iot/perigee/drivers/sim"
)

// Kinds returns every kind, in the order in which people should read of them.
func Kinds() []drivers.Kind {
	return []drivers.Kind{
		mqttdevice.Kind(),
		sim.Kind(),
		host.Kind(),
	}
}
