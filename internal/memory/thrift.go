package memory

import (
	"os"
	"runtime/debug"
)

// thrift is by how many percent the heap of a thrifty process may grow between two collections.
const thrift = 50

// enough is above what a thrifty process has alive, in bytes. Beyond that it collects garbage still more often, rather than let the heap grow.
const enough = 80 << 20

// Thrift makes this process collect its garbage twice as often, for machines that have more time than memory. Who sets GOGC or GOMEMLIMIT
// knows better.
func Thrift() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(enough)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(thrift)
	}
}
