package script

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// misuseEnv makes this test binary call everything with everything, and print what it is about to call, so that a death has a name.
const misuseEnv = "PERIGEE_TEST_MISUSE"

// Bounds of one call: what it may take until it is stopped, and beyond that.
const (
	misuseDeadline = 60 * time.Millisecond
	misuseGrace    = 300 * time.Millisecond
)

// proper are arguments with which a call does what it is for. One after the other is replaced by what it does not expect.
var proper = map[string]string{
	"state.get": `"n", 5`, "state.set": `"n", {1}`, "state.incr": `"n", 1`, "state.delete": `"n"`, "state.keys": `"n"`,
	"shared.get": `"n", 5`, "shared.set": `"n", {1}`, "shared.incr": `"n", 1`, "shared.delete": `"n"`, "shared.keys": `"n"`,
	"publish": `"alerts/x", {1}, {qos = 1}`, "retry": `"why", "1s"`, "device.write": `"fan", true, {not_after = "1s"}`, "device.read": `"cellar"`,
	"stream.append": `"alerts", {1}`, "timer.set": `"t", "5s"`, "timer.cancel": `"t"`, "secret.get": `"token"`,
	"log": `"x"`, "log.debug": `"x"`, "log.info": `"x"`, "log.warn": `"x"`, "log.error": `"x"`, "print": `"x"`,
	"http.get": `"https://api.example.com/v1/x", {reply = "r"}`, "http.delete": `"https://api.example.com/v1/x", {reply = "r"}`,
	"http.post": `"https://api.example.com/v1/x", {1}, {headers = {A = "b"}}`, "http.put": `"https://api.example.com/v1/x", {1}, {timeout = "1s"}`,
	"http.patch": `"https://api.example.com/v1/x", {1}, {not_after = "1s"}`, "http.request": `"GET", "https://api.example.com/v1/x", nil, {reply = "r"}`,
	"signal.alarm": `"a", 5, {on = 3, off = 2, hold = "1s"}`, "signal.changed": `"c", 5, {by = 1, heartbeat = "1s"}`, "signal.rate": `"r", 5, {per = "1s", wrap = 9}`,
	"signal.window": `"w", 5, "1h"`, "json.decode": `"[1]"`, "json.encode": `{1}`, "json.array": `{1}`, "json.integer": `"5"`,
	"bytes.pack": `"<i4", 5`, "bytes.unpack": `"<i4", "abcdefgh", 1`, "bytes.size": `"<i4"`, "bytes.hex": `"x"`, "bytes.unhex": `"00"`,
	"base64.encode": `"x"`, "base64.decode": `"eA=="`, "hash.hmac_sha256": `"k", "v"`,
	"assert": `true, "m"`, "error": `"m", 1`, "getmetatable": `{}`, "ipairs": `{1}`, "next": `{1}, 1`, "pairs": `{1}`, "pcall": `tostring, 5`, "rawequal": `1, 2`, "rawget": `{1}, 1`,
	"rawset": `{}, 1, 2`, "require": `"util"`, "select": `1, 2, 3`, "setmetatable": `{}, {}`, "tonumber": `"5", 10`, "tostring": `5`, "type": `5`, "unpack": `{1, 2}, 1, 2`,
	"xpcall": `tostring, tostring`, "string.byte": `"abc", 1, 2`, "string.char": `65, 66`, "string.find": `"abc", "b", 1, true`, "string.format": `"%d %s", 5, "x"`,
	"string.gfind": `"abc", "b"`, "string.gmatch": `"abc", "b"`, "string.gsub": `"abc", "b", "c", 1`, "string.len": `"abc"`, "string.lower": `"abc"`, "string.match": `"abc", "b", 1`,
	"string.rep": `"abc", 3`, "string.reverse": `"abc"`, "string.sub": `"abc", 1, 2`, "string.upper": `"abc"`, "table.concat": `{1, 2}, ",", 1, 2`, "table.foreach": `{1}, tostring`,
	"table.foreachi": `{1}, tostring`, "table.getn": `{1}`, "table.insert": `{1}, 1, 2`, "table.maxn": `{1}`, "table.remove": `{1, 2}, 1`, "table.sort": `{2, 1}, function(a, b) return a < b end`,
	"table.unpack": `{1, 2}, 1, 2`, "coroutine.create": `function() end`, "coroutine.resume": `coroutine.create(function() end), 1`, "coroutine.status": `coroutine.create(function() end)`,
	"coroutine.wrap": `function() end`, "coroutine.yield": `1`, "os.date": `"%c", 5`, "os.time": `{year = 2020, month = 1, day = 1}`, "os.difftime": `5, 3`,
	"utf8.char": `65, 66`, "utf8.codepoint": `"abc", 1, 2`, "utf8.codes": `"abc"`, "utf8.len": `"abc", 1, 2`, "utf8.offset": `"abc", 1, 1`,
	"hash.sha256": `"x"`, "hash.sha1": `"x"`, "hash.md5": `"x"`, "hash.crc32": `"x"`, "hash.crc16": `"x"`,
}

// improper are values that hardly any call expects. Those that run without end are for the deadline.
var improper = []string{`nil`, `true`, `0/0`, `1/0`, `-1/0`, `1e300`, `-1e300`, `2^53`, `-2^31`, `0.5`, `-1`, `0`, `""`, `("x"):rep(1e5)`, `"\0\255\1"`, `("%"):rep(1000)`, `("("):rep(1000)`, `("a?"):rep(5000)`, `"%99.99f%99d%s%s%s%s"`,
	`("9"):rep(400)`, `"1e999"`, `cyclic`, `deep`, `wide`, `sparse`, `mean`, `endless`, `keyed`, `{[0/1] = 1, [-1] = 2, [1.5] = 3}`, `{{}, {{}}}`, `print`, `function() while true do end end`, `function() error({}) end`, `coroutine.create(function() end)`,
	`coroutine.wrap(function() coroutine.yield() end)`, `json.null`, `json.integer("9007199254740993")`, `_G`, `event`, `(function() end)()`, `unpack({}, 1, 250)`, `("["):rep(1e4)`, `("{\"a\":"):rep(1e4)`, `"http://[::1]:99999/"`, `("c16777216"):rep(50)`}

// misusePrelude makes the values with a name, those that a call mentions.
var misusePrelude = map[string]string{
	"cyclic":  `local cyclic = {} cyclic.self = cyclic cyclic[1] = cyclic`,
	"deep":    `local deep = {} do local t = deep for i = 1, 1000 do t[1] = {} t = t[1] end end`,
	"wide":    `local wide = {} for i = 1, 5000 do wide[i] = i end`,
	"sparse":  `local sparse = {[20000] = 1, [2^40] = 2}`,
	"keyed":   `local keyed = {[{}] = 1, [print] = 2, [true] = 3}`,
	"mean":    `local function raise() error("mean") end local mean = setmetatable({}, {__index = raise, __newindex = raise, __tostring = raise, __call = raise, __concat = raise, __len = raise, __eq = raise, __lt = raise})`,
	"endless": `local function forever() while true do end end local endless = setmetatable({}, {__index = forever, __newindex = forever, __tostring = forever, __call = forever, __concat = forever, __len = forever, __eq = forever, __lt = forever})`,
}

// misuses are all calls: each argument of each function replaced by each value, and too few and too many arguments.
func misuses(t testing.TB, names []string) map[string][]string {
	all := map[string][]string{}
	for _, name := range names {
		if strings.HasPrefix(name, "_") || name == "json.null" || name == "math.pi" || name == "math.huge" || name == "utf8.charpattern" {
			continue
		}
		args := []string{"1", "2"}
		if p, ok := proper[name]; ok {
			args = argumentsOf(p)
		}
		for i := range args {
			for _, v := range improper {
				with := append([]string{}, args...)
				with[i] = v
				all[name] = append(all[name], name+"("+strings.Join(with, ", ")+")")
			}
			all[name] = append(all[name], name+"("+strings.Join(args[:i], ", ")+")")
		}
		all[name] = append(all[name], name+"("+strings.Join(args, ", ")+", 1, 2, 3, nil, {})")
	}
	require.NotEmpty(t, all)
	return all
}

// argumentsOf splits arguments at the commas that are outside of brackets and quotes.
func argumentsOf(s string) (list []string) {
	depth, quoted, start := 0, false, 0
	for i, c := range s {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("({[", c):
			depth++
		case strings.ContainsRune(")}]", c):
			depth--
		case c == ',' && depth == 0 && !strings.HasPrefix(s[start:], "function"):
			list = append(list, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(list, strings.TrimSpace(s[start:]))
}

// misused is what the child reports of a call that went wrong.
type misused struct{ Call, Problem string }

// misuseChild makes the calls that it reads, those of one name in a line, and reports.
func misuseChild() int {
	m := New(Options{})
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		var calls []string
		if err := in.Decode(&calls); err == io.EOF {
			return 0
		} else if err != nil {
			return 1
		}
		for i, problem := range misuse(m, calls) {
			if out.Encode(misused{calls[i], problem}) != nil {
				return 1
			}
		}
	}
}

// misuse makes calls, each bare and within pcall, and says which ended in a wrong way, and how.
func misuse(m *Machine, calls []string) map[int]string {
	var b strings.Builder
	b.WriteString("local calls = {}\n")
	for i, call := range calls {
		fmt.Fprintf(&b, "calls[%d] = function(event) ", i)
		for name, code := range misusePrelude {
			if strings.Contains(call, name) {
				b.WriteString(code + " ")
			}
		}
		fmt.Fprintf(&b, "return %s end\n", call)
	}
	b.WriteString("return function(event) if event.data.caught then local ok, why = pcall(calls[event.data.i], event) if ok then return why end error(why) end return calls[event.data.i](event) end")
	problems := map[int]string{}
	if f := m.Load("r", map[string][]byte{"main.lua": []byte(b.String()), "lib/util.lua": []byte("return {}")}); f != nil {
		return map[int]string{0: "it does not compile: " + f.Text()}
	}
	for i, call := range calls {
		fmt.Fprintln(os.Stderr, call)
		for _, caught := range []bool{false, true} {
			if !caught && (strings.Contains(call, "endless") || strings.Contains(call, "while true")) {
				continue // each takes all of its time
			}
			problem := misuseOnce(m, i, caught)
			for try := 0; strings.HasPrefix(problem, slow) && try < 2; try++ { // the machine may have been busy with something else
				problem = misuseOnce(m, i, caught)
			}
			if problem != "" {
				problems[i] = problem
			}
		}
	}
	return problems
}

// slow begins what is said of a call that was not stopped in time.
const slow = "it took "

func misuseOnce(m *Machine, i int, caught bool) string {
	inv := testInvocation()
	inv.Limits.Timeout = misuseDeadline
	inv.Event.Data = fmt.Appendf(nil, `{"i":%d,"caught":%v}`, i, caught)
	inv.Perms.HTTP = []functions.HTTPRule{{Origin: "https://api.example.com", Path: "/v1/", Prefix: true}}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), inv.Limits.Timeout)
	out := m.Run(ctx, inv, noAnswers)
	cancel()
	if took := time.Since(began); took > misuseDeadline+misuseGrace {
		return slow + took.String()
	}
	f := out.Fault
	switch {
	case f == nil:
		return ""
	case strings.Contains(f.Text(), "internal error"), strings.Contains(f.Text(), "runtime error"), f.Message == "", len(f.Text()) > 2500:
		return "the fault is " + capped(f.Text(), 500)
	case f.Kind == functions.FaultTimeout && !strings.Contains(f.Message, "limits.timeout"), strings.Contains(f.Message, "\n"):
		return "the fault is unclear: " + capped(f.Text(), 500)
	}
	return ""
}

// Every call of the libraries with every kind of wrong argument ends in time, with a fault that is one, and leaves the Machine whole.
func TestEveryCallMisused(t *testing.T) {
	names := usableNames(t)
	all := misuses(t, names)
	n := 0
	for name := range proper {
		require.Contains(t, all, name)
	}
	var in bytes.Buffer
	for _, name := range names {
		for part := range slices.Chunk(all[name], 40) {
			require.NoError(t, json.NewEncoder(&in).Encode(part))
			n += len(part)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), misuseEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	tail := strings.TrimSpace(stderr.String())
	if err != nil {
		if i := strings.Index(tail, "fatal error"); i >= 0 {
			tail = tail[:i+60]
		}
		t.Fatalf("the process died: %v, at: %s", err, tail[max(0, len(tail)-400):])
	}
	for line := range bytes.Lines(text) {
		var m misused
		require.NoError(t, json.Unmarshal(line, &m))
		t.Errorf("%s: %s", capped(m.Call, 200), m.Problem)
	}
	t.Log(n, "calls")
}
