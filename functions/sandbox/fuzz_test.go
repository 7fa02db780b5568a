package sandbox

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/functions/rules"
)

// fuzz makes of a fake one that does anything: it answers honestly, late, twice, for others or never; it cuts frames,
// changes bytes of them, announces lengths that nobody has, and floods.
func (f *fake) fuzz(inv *functions.Invocation) {
	random := rand.New(rand.NewPCG(inv.Seed, 7))
	good := func() []byte {
		o := &functions.Outcome{ID: inv.ID, Result: []byte(`"fuzzed"`), Effects: []functions.Effect{{Kind: functions.Publish, Name: "perigee/x", Value: []byte("x")}}}
		b, err := frame.AppendOutcome(nil, o)
		if err != nil {
			panic(err)
		}
		return b
	}
	switch random.IntN(14) {
	case 0, 1, 2, 3: // one byte, or a few, of a good frame are others
		b := good()
		for range 1 + random.IntN(3) {
			b[random.IntN(len(b))] = byte(random.IntN(256))
		}
		f.conn.Write(b)
	case 4: // half a frame, and the rest never or later
		b := good()
		at := random.IntN(len(b))
		f.conn.Write(b[:at])
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		f.conn.Write(b[at:])
	case 5: // noise
		b := make([]byte, random.IntN(4096))
		for i := range b {
			b[i] = byte(random.IntN(256))
		}
		f.conn.Write(b)
	case 6: // a length that is not there
		b := good()
		binary.LittleEndian.PutUint32(b, random.Uint32())
		f.conn.Write(b)
	case 7: // of another
		b, err := frame.AppendOutcome(nil, &functions.Outcome{ID: random.Uint64()})
		f.send(b, err)
	case 8: // twice
		f.conn.Write(append(good(), good()...))
	case 9: // never
		time.Sleep(time.Hour)
	case 10: // late
		time.Sleep(time.Duration(random.IntN(80)) * time.Millisecond)
		f.conn.Write(good())
	case 11: // asks without end, and does not read
		for {
			f.send(frame.AppendAsk(nil, inv.ID, functions.Read{Kind: functions.ReadState, Name: "big"}))
		}
	case 12: // as much log as there may be
		o := &functions.Outcome{ID: inv.ID}
		for range 60 {
			o.Logs = append(o.Logs, functions.LogLine{Level: "error", Text: strings.Repeat("\x1b[31m", 1600)})
		}
		f.send(frame.AppendOutcome(nil, o))
	case 13: // frames of all types, with bodies of their limits
		t := []frame.Type{frame.Ready, frame.Need, frame.Outcome, frame.Ask, frame.Checked, frame.Revoked}[random.IntN(6)]
		b := make([]byte, 5+random.IntN(frame.FromWorker(t)+1))
		binary.LittleEndian.PutUint32(b, uint32(len(b)-5))
		b[4] = byte(t)
		for i := 5; i < len(b); i++ {
			b[i] = byte(random.IntN(3))
		}
		f.conn.Write(b)
	}
}

// TestFuzzedWorkers: workers that do anything, and honest jobs among those that they are given. The pool lives, each job
// is told exactly once, whatever is told is within its limits or judged a fault, and what an honest worker ran is right.
func TestFuzzedWorkers(t *testing.T) {
	const jobs = 150
	before := openFiles(t)
	p := newPool(t, "honest", func(o *Options) { o.Max, o.Warm, o.Grace = 3, 2, 20*time.Millisecond })
	spec := &functions.Spec{Limits: functions.DefaultLimits()}
	told := make([]atomic.Int32, jobs)
	var faults, accepted atomic.Int32
	var some sync.WaitGroup
	for i := range jobs {
		some.Add(1)
		honest := i%3 == 0
		data := "fuzz"
		if honest {
			data = strconv.Itoa(i)
		}
		j := job(data, func(o *functions.Outcome) {
			defer some.Done()
			if told[i].Add(1) != 1 {
				t.Errorf("%d is told again", i)
			}
			fault := o.Fault
			if fault == nil && o.Retry == nil {
				fault = rules.Check(spec, o, rules.Surroundings{Prefix: "perigee", Writable: func(string) bool { return false }})
			}
			switch {
			case honest && (o.Fault != nil || string(o.Result) != strconv.Quote(data)):
				t.Errorf("%d: %s %v", i, o.Result, o.Fault)
			case honest:
			case fault != nil:
				require.LessOrEqual(t, len(fault.Message), 4096)
				require.NotContains(t, fault.Text(), "\x1b")
				faults.Add(1)
			default:
				accepted.Add(1) // it said something that an honest one could have said
				if len(o.Effects) > 0 {
					t.Errorf("%d: an effect without permission: %+v", i, o.Effects)
				}
			}
		})
		of("fuzz" + strconv.Itoa(i%7))(&j)
		if honest {
			of("honest" + strconv.Itoa(i%2))(&j)
		}
		j.Inv.Seed, j.Inv.Limits = uint64(i), functions.Limits{Timeout: 40 * time.Millisecond, Reads: 50}
		if honest {
			j.Inv.Limits.Timeout = 20 * time.Second
		}
		p.Submit(j)
		if i%20 == 19 {
			some.Wait()
		}
	}
	some.Wait()
	eventually(t, "all is quiet", func() bool { s := p.Stats(); return s.Busy == 0 && s.Waiting == 0 })
	require.Nil(t, run(t, p, "hello", nil).Fault)
	s := p.Stats()
	require.NotZero(t, s.Breaches)
	require.NotZero(t, s.Timeouts)
	require.LessOrEqual(t, s.Running, 3)
	t.Logf("%d faults, %d accepted; %+v", faults.Load(), accepted.Load(), s)
	p.Close()
	eventually(t, "no descriptor is left open", func() bool { return openFiles(t) <= before+2 })
}

func openFiles(t *testing.T) int {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}
