package worker

import "github.com/perigee-iot/perigee/functions/script"

// newMachine is the machine of a real worker. One invocation may use at most half of the process: the rest is the
// binary's own pages and what its garbage takes before it is collected.
func newMachine(memory int64) machine {
	return script.New(script.Options{MaxMemory: memory / 2})
}
