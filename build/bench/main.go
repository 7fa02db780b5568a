// Bench measures what the gateway costs against the least that could do the same job: a bare program that subscribes, and
// publishes an answer. Both get the same events from the same Mosquitto, in turns, on the same machine within minutes, so
// that the numbers can be compared with each other; they cannot be compared with those of another run.
//
//	go run ./build/bench -seconds 30 -rate 1000
//
// Each event is a JSON object with a sequence number; the answer bears the same one. End to end is from before the event
// is published until the answer is received, both here. CPU, memory and bytes written are those of the whole process
// tree, from /proc. The bare program runs twice, as Go starts it and with one processor, and the gateway is
// compared with the better one. Its exit status is 1 if an event had no answer or two, and never says
// anything about speed. The subject driver, measured only if it is asked for, is the gateway's MQTT driver alone.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	Seconds int     `json:"seconds"` // measured, in all rounds of one subject together
	Rounds  int     `json:"rounds"`
	Rate    int     `json:"rate"` // events a second
	Keys    int     `json:"keys"` // 0: key none
	State   bool    `json:"state"`
	Store   string  `json:"durability"`
	Perigee string  `json:"perigee"`
	Only    string  `json:"-"`
	Dir     string  `json:"-"`
	JSON    bool    `json:"-"`
	Verbose bool    `json:"-"`
	Warm    float64 `json:"warm_seconds"`
}

func main() {
	if len(os.Args) == 3 && (os.Args[1] == "bare" || os.Args[1] == "driver") {
		reference := bare
		if os.Args[1] == "driver" {
			reference = driver
		}
		if err := reference(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.Seconds, "seconds", 30, "seconds of load for each subject")
	flag.IntVar(&o.Rounds, "rounds", 3, "rounds that these seconds are split into")
	flag.IntVar(&o.Rate, "rate", 1000, "events a second")
	flag.IntVar(&o.Keys, "keys", 1, "keys that the events are spread over; 0: key none")
	flag.BoolVar(&o.State, "state", false, "count the events in the function's state")
	flag.StringVar(&o.Store, "durability", "crash", "the gateway's store.durability")
	flag.StringVar(&o.Perigee, "perigee", "dist/perigee", "the gateway's binary")
	flag.StringVar(&o.Only, "only", "", "names of the subjects to measure, with commas; all but driver by default")
	flag.StringVar(&o.Dir, "dir", "", "where the gateway's data goes; a temporary directory by default")
	flag.BoolVar(&o.JSON, "json", false, "print JSON")
	flag.BoolVar(&o.Verbose, "v", false, "show what the subjects print")
	flag.Float64Var(&o.Warm, "warm", 2, "seconds of load before the measuring, in each round")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.Seconds < 1 || o.Rounds < 1 || o.Rate < 1 || o.Rate > 1_000_000 || o.Keys < 0 || flag.NArg() > 0 {
		return fmt.Errorf("-seconds, -rounds and -rate must be positive, and there are no other arguments")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	dir, err := os.MkdirTemp(o.Dir, "perigee-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	broker, err := startMosquitto(dir)
	if err != nil {
		return err
	}
	defer broker.stop()
	c, err := client(broker.url) // until it listens
	if err != nil {
		return fmt.Errorf("mosquitto: %w\n%s", err, broker.output())
	}
	c.Disconnect(0)
	subjects := choose(o, broker.url)
	if len(subjects) == 0 {
		return fmt.Errorf("nothing to measure: -only knows %s", strings.Join(names(allSubjects("")), ", "))
	}
	results := make([]*result, len(subjects))
	for i, s := range subjects {
		results[i] = &result{Name: s.name}
	}
	for round := range o.Rounds {
		for i, s := range subjects {
			select {
			case sig := <-stop:
				return fmt.Errorf("stopped: %v", sig)
			default:
			}
			if !o.JSON {
				fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, o.Rounds, s.name)
			}
			if err := measure(o, dir, s, results[i]); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	rep := newReport(o, results)
	if o.JSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(rep); err != nil {
			return err
		}
	} else {
		rep.print(os.Stdout)
	}
	return rep.complete()
}

// measure runs one round of one subject.
func measure(o options, dir string, s subject, r *result) error {
	p, err := s.start(dir, o)
	if err != nil {
		return err
	}
	defer p.stop()
	l, err := connect(p.url, o)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.output())
	}
	defer l.close()
	if err := l.waitReady(p.ended); err != nil {
		return fmt.Errorf("%w\n%s", err, p.output())
	}
	time.Sleep(2 * time.Second) // let it come to rest
	idleCPU := tree(p.pid()).cpu()
	time.Sleep(2 * time.Second)
	idle := tree(p.pid())
	r.idle(idle, idle.cpu()-idleCPU, 2*time.Second)

	l.send(time.Duration(o.Warm * float64(time.Second)))
	before := tree(p.pid())
	first := l.next()
	quit := make(chan struct{})
	peak := make(chan memory)
	go func() { peak <- watch(p.pid(), quit) }()
	l.send(time.Duration(o.Seconds) * time.Second / time.Duration(o.Rounds))
	l.drain()
	after := tree(p.pid())
	close(quit)
	r.load(l, first, before, after, <-peak)
	select {
	case <-p.ended:
		return fmt.Errorf("it ended while it was measured\n%s", p.output())
	default:
		return nil
	}
}
