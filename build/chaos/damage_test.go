package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
)

// keep writes, for each message, in one transaction: the number, a text of it that is too long for a table, one that is not, and a
// record. So whatever is served afterwards can be told to be right or wrong, and old or new.
var keep = function{"keep", `triggers: [{mqtt: "keep/{k}"}]
key: "{k}"
permissions: {streams: [kept]}
limits: {state: 8MiB}
`, `return function(event, ctx)
  local n = event.data.n
  if n < 0 then error("poison") end
  state.set("n", n)
  state.set("long", string.rep(event.key .. " " .. n .. " ", 200))
  state.set("short", string.rep(n .. " " .. event.key .. " ", 50))
  timer.set("never", "30d")
  stream.append("kept", {k = event.key, n = n})
end
`}

const (
	keepKeys   = 20
	shortHarms = 12 // of each suite, in the short form
)

// keepEach is how many events of a key there are in each of two rounds.
func keepEach() int {
	if *full {
		return 150
	}
	return 40
}

// kept is what one gateway serves: everything that keep has written.
type kept struct {
	state   map[string]string // key and name → value
	records int64
	next    uint64
	epoch   string
	dead    int
	trouble []string // what the gateway says is wrong
}

// TestDamaged harms one file of a store at a time, in each way that cards and crashes do, starts the gateway on it, and compares
// what it serves with what it had. It may have lost something, but then it says so.
func TestDamaged(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) {
			url, _ := embedded(t, "power")
			g := newGateway(t, fmt.Sprintf("broker: {listen: [%s]}\nstore: {profile: small}\n", url), []function{keep})
			was := fill(t, g, url, how == "killed")
			d := damaged{t: t, g: g, url: url, was: was, template: filepath.Join(g.dir, "template")}
			require.NoError(t, os.Rename(filepath.Join(g.dir, "data"), d.template))
			all := d.cases()
			d.try(harm{"nothing", "", func(string) error { return nil }})
			require.Equal(t, 1, d.whole, "what was not harmed is all there")
			if !*full {
				rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				all = one(all)
			}
			for _, h := range all {
				d.try(h)
			}
			t.Logf("%s: %d harms in %d kinds of files; whole afterwards %d, lost something and said so %d, crashed 0, silently wrong %d",
				how, len(all), len(d.kinds()), d.whole-1, d.said, len(d.wrong))
			require.Empty(t, d.wrong)
		})
	}
}

// fill runs a gateway until it has tables, value logs, memtables, dead letters and records, and ends it.
func fill(t *testing.T, g *gateway, url string, killed bool) kept {
	for round := range 2 {
		g.start()
		g.ready()
		c := publisher(t, url)
		for n := 1; n <= keepEach(); n++ {
			publish(t, c, n+round*keepEach())
		}
		publish(t, c, -1)
		c.Disconnect(100)
		if round == 0 || !killed {
			g.settle()
		}
		if round == 0 {
			g.stop()
		}
	}
	g.settle()
	was := g.kept()
	require.Empty(t, was.trouble)
	require.Len(t, was.state, keepKeys*3)
	require.EqualValues(t, keepKeys*keepEach()*2, was.records)
	if killed {
		g.kill()
	} else {
		g.stop()
	}
	return was
}

func publisher(t *testing.T, url string) mqtt.Client {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("publisher"))
	tok := c.Connect()
	require.True(t, tok.WaitTimeout(30*time.Second))
	require.NoError(t, tok.Error())
	return c
}

// publish sends a number to every key, and waits until all are accepted.
func publish(t *testing.T, c mqtt.Client, n int) {
	var all []mqtt.Token
	for k := range keepKeys {
		all = append(all, c.Publish(fmt.Sprintf("keep/k%d", k), 1, false, fmt.Sprintf(`{"n":%d}`, n)))
	}
	for _, tok := range all {
		require.True(t, tok.WaitTimeout(30*time.Second))
		require.NoError(t, tok.Error())
	}
}

func (g *gateway) client() *api.Client { return api.Dial(filepath.Join(g.dir, "data", "perigee.sock")) }

// settle waits until nothing waits or is to be done, for long enough that the last group is written.
func (g *gateway) settle() {
	g.t.Helper()
	c := g.client()
	defer c.Close()
	eventually(g.t, "the gateway to be idle", time.Minute, func() bool {
		s, err := c.Status(context.Background())
		return err == nil && s.Events.Waiting == 0 && s.Events.Inbox == 0 && s.Events.Actions == 0
	})
}

// kept asks for everything that keep has written. What cannot be read is trouble that the gateway has told of.
func (g *gateway) kept() kept {
	g.t.Helper()
	c := g.client()
	defer c.Close()
	k := kept{state: map[string]string{}}
	say := func(format string, a ...any) { k.trouble = append(k.trouble, fmt.Sprintf(format, a...)) }
	entries, err := c.State(context.Background(), api.StateRef{Function: "keep"})
	if err != nil {
		say("state: %v", err)
	}
	for _, e := range entries {
		k.state[e.Key+" "+e.Name] = string(e.Value)
	}
	streams, err := c.Streams(context.Background())
	if err != nil {
		say("streams: %v", err)
	}
	for _, s := range streams {
		if s.Name == "kept" {
			k.records, k.next, k.epoch = s.Waiting, s.Next, s.Epoch
		}
	}
	dead, err := c.DeadLetters(context.Background(), api.DeadQuery{Limit: 1000})
	if err != nil {
		say("dead letters: %v", err)
	}
	k.dead = len(dead)
	fns, err := c.Functions(context.Background())
	if err != nil {
		say("functions: %v", err)
	}
	for _, f := range fns {
		if f.State != "active" {
			say("%s is %s: %s", f.Name, f.State, f.Reason)
		}
	}
	status, err := c.Status(context.Background()) // last: reading is how some damage is found
	require.NoError(g.t, err)
	for _, p := range status.Problems {
		say("%s", p)
	}
	for why, n := range status.Losses {
		say("lost by %s: %d", why, n)
	}
	return k
}

// damaged is the suite in the making.
type damaged struct {
	t        *testing.T
	g        *gateway
	url      string
	was      kept
	template string
	whole    int // nothing was lost
	said     int
	wrong    []string
}

// harm is one way to spoil one file.
type harm struct {
	how, file string
	do        func(path string) error
}

// files are those of the store, below its directory.
func (d *damaged) files() (all []string) {
	err := filepath.WalkDir(d.template, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			rel, _ := filepath.Rel(d.template, path)
			all = append(all, rel)
		}
		return err
	})
	require.NoError(d.t, err)
	return all
}

// kind is what is harmed once in the short form: all files with the same name or ending.
func kind(file string) string {
	if ext := filepath.Ext(file); ext != "" {
		return ext
	}
	return file
}

func (d *damaged) kinds() map[string]bool {
	kinds := map[string]bool{}
	for _, f := range d.files() {
		kinds[kind(f)] = true
	}
	return kinds
}

// one keeps a case of each sort of harm and kind of file, up to the bound of the short form.
func one(all []harm) (some []harm) {
	have := map[string]bool{}
	for _, h := range all {
		sort, _, _ := strings.Cut(h.how, " ")
		if what := sort + kind(h.file); !have[what] && len(some) < shortHarms {
			have[what] = true
			some = append(some, h)
		}
	}
	slices.SortFunc(some, func(a, b harm) int { return strings.Compare(a.file+a.how, b.file+b.how) })
	return some
}

// cases are all harms of all files; of blocks in long ones a choice.
func (d *damaged) cases() (all []harm) {
	for _, f := range d.files() {
		end := written(d.t, filepath.Join(d.template, f))
		all = append(all, harm{"missing", f, os.Remove}, harm{"empty", f, func(p string) error { return os.Truncate(p, 0) }})
		if end == 0 {
			continue
		}
		for _, cut := range []int64{1, 7, 100, 4096, end / 2} {
			if cut < end {
				all = append(all, harm{fmt.Sprintf("torn %d", cut), f, func(p string) error { return os.Truncate(p, end-cut) }})
			}
		}
		blocks := (end + 4095) / 4096
		for i := range min(blocks, 8) {
			at := 4096 * (i * blocks / min(blocks, 8))
			all = append(all, harm{fmt.Sprintf("zeroed %d", i), f, func(p string) error { return overwrite(p, at, make([]byte, min(4096, end-at))) }})
		}
		for i := range 4 {
			at := rand.Int64N(end)
			all = append(all, harm{fmt.Sprintf("garbage %d", i), f, func(p string) error { return overwrite(p, at, garbage(min(64, end-at))) }})
		}
	}
	return all
}

// written is how long a file is without the zeroes at its end: logs are as long as they may become.
func written(t *testing.T, path string) int64 {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	return int64(end)
}

func overwrite(path string, at int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func garbage(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return b
}

// try starts the gateway on a harmed copy of the store.
func (d *damaged) try(h harm) {
	d.t.Helper()
	data := filepath.Join(d.g.dir, "data")
	require.NoError(d.t, os.RemoveAll(data))
	out, err := exec.Command("cp", "-a", "--sparse=always", d.template, data).CombinedOutput()
	require.NoError(d.t, err, "%s", out)
	require.NoError(d.t, h.do(filepath.Join(data, h.file)), "%s: %s", h.file, h.how)
	d.g.start()
	c := d.g.client()
	defer c.Close()
	eventually(d.t, fmt.Sprintf("the gateway with %s %s", h.file, h.how), time.Minute, func() bool {
		s, err := c.Status(context.Background())
		return err == nil && s.Ready
	})
	now := d.g.kept()
	require.NoError(d.t, d.g.cmd.Process.Signal(syscall.Signal(0)), "%s %s: the gateway is gone", h.file, h.how)
	mq := publisher(d.t, d.url)
	publish(d.t, mq, 1) // it works: this is accepted
	mq.Disconnect(10)
	d.g.kill()
	verdict := d.judge(now)
	d.t.Logf("%-22s %-12s %s", h.file, h.how, verdict)
	switch {
	case verdict == "whole":
		d.whole++
	case len(now.trouble) > 0:
		d.said++
	default:
		d.wrong = append(d.wrong, h.file+" "+h.how+": "+verdict)
	}
	for what, v := range now.state { // what is served is right, or was right once, whatever is said
		if key, name, _ := strings.Cut(what, " "); !sound(key, name, v) {
			d.wrong = append(d.wrong, fmt.Sprintf("%s %s: %s is %.40s…", h.file, h.how, what, v))
		}
	}
}

// judge says how what is served differs from what there was.
func (d *damaged) judge(now kept) string {
	var differs []string
	for what, v := range d.was.state {
		if got, ok := now.state[what]; !ok {
			differs = append(differs, what+" gone")
		} else if got != v {
			differs = append(differs, what+" old")
		}
	}
	slices.Sort(differs)
	if n := len(differs); n > 3 {
		differs = append(differs[:2], fmt.Sprintf("%d more", n-2))
	}
	if now.records != d.was.records || now.next != d.was.next {
		differs = append(differs, fmt.Sprintf("%d records, next %d", now.records, now.next))
	}
	if now.epoch != d.was.epoch {
		differs = append(differs, "new epoch")
	}
	if now.dead != d.was.dead {
		differs = append(differs, fmt.Sprintf("%d dead letters", now.dead))
	}
	if len(differs) == 0 {
		return "whole"
	}
	return strings.Join(differs, ", ") + "; said: " + strings.Join(now.trouble, "; ")
}

// sound says that a value of keep's is one that it wrote for that key.
func sound(key, name, value string) bool {
	var n int
	var s string
	switch {
	case name == "n":
		return json.Unmarshal([]byte(value), &n) == nil && n > 0 && n <= 2*keepEach()
	case json.Unmarshal([]byte(value), &s) != nil:
		return false
	case name == "long":
		_, err := fmt.Sscanf(s, key+" %d", &n)
		return err == nil && s == strings.Repeat(fmt.Sprintf("%s %d ", key, n), 200)
	}
	_, err := fmt.Sscanf(s, "%d", &n)
	return err == nil && s == strings.Repeat(fmt.Sprintf("%d %s ", n, key), 50)
}
