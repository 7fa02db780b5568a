package memory

import (
	"os"
	"runtime/debug"
)

// thrift is by how many percent the heap of a thrifty process may grow between two collections.
const thrift = 50

// Thrift makes this process collect its garbage twice as often, for machines that have more time than memory. Who sets GOGC knows better.
func Thrift() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(thrift)
	}
}
