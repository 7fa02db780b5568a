package app

// base is the version that this source is on its way to.
const base = "0.1.0"

// Version is what the gateway calls itself: the linker's word if there is one, else that of the module.
func Version(linked, module string) string {
	switch {
	case linked != "" && linked != "unknown":
		return base + "+" + linked
	case module != "" && module != "(devel)":
		return base + "+" + module
	}
	return base
}
