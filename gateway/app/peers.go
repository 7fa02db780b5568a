package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// checkPeers says which devices want to read others that are not there. A device that could not be made is wrong itself.
func checkPeers(cfg *config.Config, made drivers.Set) (errs []error) {
	names := slices.Sorted(maps.Keys(cfg.Devices))
	for _, name := range names {
		d := made[name]
		if d == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(d.Peers)) {
			want, place := d.Peers[key], cfg.Devices[name].Node.At(key)
			_, there := cfg.Devices[want]
			switch peer := made[want]; {
			case want == name:
				errs = append(errs, place.Errorf("must name another device, not this one"))
			case !there:
				errs = append(errs, place.Errorf("there is no device %q; %s", want, others(want, name, names)))
			case peer != nil && peer.Reader == nil:
				errs = append(errs, place.Errorf("device %q cannot be read", want))
			}
		}
	}
	return errs
}

// others says which devices there are, and which of them somebody may have meant.
func others(want, self string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == self })
	if len(names) == 0 {
		return "there is no other"
	}
	near := yamlfile.Nearest(want, names)
	if len(names) > 16 {
		names = append(names[:16:16], "…")
	}
	list := strings.Join(names, ", ")
	if near != "" {
		return fmt.Sprintf("did you mean %q? There are %s", near, list)
	}
	return "there are " + list
}
