// Package examples holds functions to learn from and to start with. Each is a folder as a gateway wants it, with comments that
// teach, and cases in tests/ with messages in the form that real devices send.
package examples

import "embed"

// Names of the folders that Files holds for the demo.
const (
	Overheat = "overheat"
	Lamp     = "lamp"
	Climate  = "climate"
	Health   = "health"
	Proof    = "proof"
)

//go:embed */function.yaml */main.lua
var files embed.FS

// Files are the folders of all examples: NAME/function.yaml and NAME/main.lua.
func Files() embed.FS { return files }
