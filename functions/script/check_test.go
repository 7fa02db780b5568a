package script

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

func TestCheckRunsTheTopLevel(t *testing.T) {
	m := New(Options{})
	lib := []byte(`return {n = 1}`)
	for name, c := range map[string]struct{ main, wrong string }{
		"good":                   {`local u = require "util" return function() return u.n end`, ""},
		"log":                    {`log.info("loaded", os.time()) local s = signal return function() end`, ""},
		"empty":                  {``, "main.lua must return a function, it returned nil"},
		"a number":               {`return 5`, "main.lua:1: main.lua must return a function, it returned a number"},
		"an error":               {"\nerror('boo')", "main.lua:2: boo"},
		"no such lib":            {`local x = require "nolib" return function() end`, "no module 'nolib'"},
		"endless":                {"local n = 0\nwhile true do n = n + 1 end", "limits.timeout"},
		"endless, protected":     {`pcall(function() while true do end end) return function() end`, "limits.timeout"},
		"memory":                 {`local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end`, "limits.memory"},
		"of an event":            {`local n = state.get("n") + 1 return function() return n end`, ""},
		"of an event, protected": {`pcall(device.read, "x") error("depends on it")`, ""},
		"publish":                {`publish("x", 1) return function() end`, ""},
		"alarm":                  {`signal.alarm("a", 7, {on = 5}) return function() end`, ""},
		"wrong after the event":  {`if not pcall(secret.get, "s") then error("no") end return function() end`, ""},
		"handler that fails":     {`return function() error("only when an event comes") end`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			limits := functions.Limits{Timeout: 300 * time.Millisecond, Memory: 8 << 20}
			if c.wrong == "limits.memory" {
				limits.Timeout = 20 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limits.Timeout)
			defer cancel()
			f := m.Check(ctx, name, map[string][]byte{"main.lua": []byte(c.main), "lib/util.lua": lib}, limits)
			if c.wrong == "" {
				require.Nil(t, f)
				return
			}
			require.NotNil(t, f)
			require.Contains(t, f.Message, c.wrong)
			require.NotEmpty(t, f.Message)
		})
	}
}

// TestCheckLeavesNothing: a run after a check sees its own event and none of what the check did.
func TestCheckLeavesNothing(t *testing.T) {
	m := New(Options{})
	main := `seen = (seen or 0) + 1 log.info("top") return function(event) return {seen, event.data.temperature} end`
	inv := testInvocation()
	require.Nil(t, m.Check(t.Context(), inv.Revision, map[string][]byte{"main.lua": []byte(main)}, inv.Limits))
	out := runWith(t, m, inv, main, noAnswers)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `[1, 31]`, string(out.Result))
	require.Len(t, out.Logs, 1)
}
