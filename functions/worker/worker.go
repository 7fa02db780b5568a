// Package worker is what runs in a worker process: it takes frames from the gateway over a socket, runs one invocation
// at a time, and sends back what came of it.
//
// Two goroutines: one reads frames and queues them, so that the gateway never waits for a worker to read; the other
// takes from the queue and runs. An outcome is sent before the next invocation begins. That order is a promise: when a
// worker dies, the first invocation without an outcome is the one that killed it.
//
// A worker has no way to the world but its socket. When the socket closes, the process ends.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/confine"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/internal/memory"
)

// machine is what runs Lua: *script.Machine. It is used by one goroutine.
type machine interface {
	Load(digest string, files map[string][]byte) *functions.Fault
	Loaded(digest string) bool
	Check(ctx context.Context, digest string, files map[string][]byte, limits functions.Limits) *functions.Fault
	Run(ctx context.Context, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome
}

// Name is the first argument of a process that is to be a worker; the second is its memory limit in bytes, the third the names of the layers
// of confinement to do without, with commas.
const Name = "worker"

// DefaultMemory is the memory limit of a worker that is not told one.
const DefaultMemory = 64 << 20

// socketFD is the descriptor that a worker inherits.
const socketFD = 3

// MainIfWorker makes this process a worker if it was started as one, and then does not return. A program whose pool
// starts the program itself calls it first in main; a test binary in TestMain.
func MainIfWorker() {
	if len(os.Args) > 1 && os.Args[1] == Name {
		os.Exit(Main())
	}
}

// Main runs this process as a worker until its socket closes, and returns its exit status.
func Main() int {
	limit := memoryArg(os.Args)
	runtime.GOMAXPROCS(1)
	debug.SetMaxStack(16 << 20)            // deep recursion ends early and small
	debug.SetGCPercent(gcPercent(os.Args)) // little lives from one invocation to the next; the guard and the limit see to large ones
	debug.SetMemoryLimit(limit / 2)        // of the Go heap: the rest is the binary's pages and what a sample comes too late for
	debug.SetTraceback("none")             // one line of reason is enough for the gateway
	rel, _ := memory.NewReleaser()         // where /proc is missing, it releases less
	conn := os.NewFile(socketFD, "gateway")
	if conn == nil {
		fmt.Fprintln(os.Stderr, "a worker is started by the gateway and cannot be run by hand")
		return 2
	}
	layers, err := confine.Apply(confine.Options{Memory: limit, Socket: conn, Without: withoutArg(os.Args), Before: announce(conn)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := newMachine(limit)
	rel.Release() // what only the start needed
	if err := serve(conn, m, rel.Release, layers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func memoryArg(args []string) int64 {
	if len(args) > 2 {
		if n, err := strconv.ParseInt(args[2], 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return DefaultMemory
}

func withoutArg(args []string) []string {
	if len(args) > 3 && args[3] != "" {
		return strings.Split(args[3], ",")
	}
	return nil
}

// gcPercent is by how many percent the heap may grow between two collections: by less on a machine that has more time than memory.
func gcPercent(args []string) int {
	if len(args) > 4 && args[4] == "thrifty" {
		return 150
	}
	return 400
}

// announce tells the gateway which layer of confinement is about to be put on: if this process dies of it, that was it.
func announce(conn io.Writer) func(string) error {
	return func(layer string) error {
		b, err := frame.AppendConfining(nil, layer)
		if err == nil {
			_, err = conn.Write(b)
		}
		return err
	}
}

// serve runs what comes over conn until it closes. An invocation that is running then is left to the end of the process.
func serve(conn io.ReadWriter, m machine, release func(), layers []frame.Layer) error {
	w := &worker{conn: conn, machine: m, wake: make(chan struct{}, 1), answers: make(chan answer, 1),
		release: release, rest: time.NewTimer(restAfter)}
	defer w.rest.Stop()
	w.late = time.AfterFunc(time.Hour, w.tooLate)
	defer w.late.Stop()
	if err := w.send(func(buf []byte) ([]byte, error) { return frame.AppendReady(buf, layers) }); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- w.run() }()
	read := make(chan error, 1)
	go func() { read <- w.read() }()
	select {
	case err := <-failed:
		return err
	case err := <-read:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}
