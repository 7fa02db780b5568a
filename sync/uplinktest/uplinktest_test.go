package uplinktest_test

import (
	"testing"

	"github.com/perigee-iot/perigee/sync/uplink"
	"github.com/perigee-iot/perigee/sync/uplinktest"
)

func TestMemory(t *testing.T) {
	uplinktest.Run(t, uplinktest.Harness{
		Refuses: true,
		Link:    func(_ *testing.T, cloud *uplinktest.Cloud) uplink.Link { return &uplinktest.Link{Cloud: cloud} },
	})
}
