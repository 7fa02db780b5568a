package script

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// These tests prove that a run sees nothing of an earlier one, though its Lua state, its stack and its registers are used again. They do not know what
// there is: they walk everything that a function can reach, spoil each thing they find, and look whether the next run finds all of it as it was.

// walker lists all that it can reach, by path: globals, library tables, metatables of values of every type, arguments, what the
// functions of the host return, modules, upvalues and coroutines. Told a path, it spoils what is there in every way it knows.
const walker = `
local next, type, tostring, getmetatable, setmetatable, rawget, rawset, pcall, sort = next, type, tostring, getmetatable, setmetatable, rawget, rawset, pcall, table.sort
local resume, create, wrap, yield, status = coroutine.resume, coroutine.create, coroutine.wrap, coroutine.yield, coroutine.status
local random, randomseed = math.random, math.randomseed
local gsub, byte = string.gsub, string.byte
local util = require "util"
local upvalue = {deeper = {1}}
local function closure() return upvalue end

local function roots(event, ctx)
  local r = {
    globals = _G, event = event, ctx = ctx, module = util, again = require("util"), closure = closure(), hidden = util.hidden(),
    array = json.decode("[1,[2]]"), object = json.decode('{"a":{"b":1}}'), marked = json.array(), null = json.null,
    date = os.date("*t"), state = state.get("value"), list = state.get("list"), names = state.keys(""), shared = shared.get("value"), sharedNames = shared.keys(""),
    reading = device.read("cellar"), window = signal.window("w", 5, "1h"),
    text = "text", number = 5, yes = true, go = print, lua = closure, iterator = ("a b"):gmatch("%a"), codes = utf8.codes("ab"),
  }
  if event.data.threads then
    r.thread, r.wrapped = create(function(a) while true do a = yield(a) end end), wrap(function() while true do yield(5) end end)
    resume(r.thread, 1)
    r.wrapped()
  end
  return r
end

local function plain(s) return (gsub(s, "[^ -~]", function(c) return "<" .. byte(c) .. ">" end)) end
local function key(k) return type(k) == "string" and plain(k) or type(k) == "number" and "[" .. k .. "]" or "(" .. type(k) .. ")" end

local function walk(event, ctx)
  local found, order, seen, queue = {}, {}, {}, {}
  local function visit(path, v)
    local kind = type(v)
    local text = kind
    if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then text = kind .. " " .. tostring(v) end
    if kind == "thread" then text = kind .. " " .. status(v) end
    if v ~= nil and kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      if seen[v] then text = text .. " is " .. seen[v] else
        seen[v] = path
        queue[#queue + 1] = {path, v}
      end
    end
    found[path], order[#order + 1] = {value = v, text = text}, path
    local mt = getmetatable(v)
    if mt ~= nil then
      if type(mt) == "table" and seen[mt] then found[path].text = text .. ", metatable is " .. seen[mt]
      else visit(path .. "<metatable>", mt) end
    end
  end
  local top = roots(event, ctx)
  local list = {}
  for k in next, top do list[#list + 1] = k end
  sort(list)
  for _, k in next, list do visit(k, top[k]) end
  local i = 1
  while queue[i] do
    local path, v = queue[i][1], queue[i][2]
    if type(v) == "table" then
      local keys, byText = {}, {}
      for k in next, v do keys[#keys + 1] = key(k) byText[key(k)] = k end
      sort(keys)
      for _, k in next, keys do visit(path .. "." .. k, rawget(v, byText[k])) end
    end
    i = i + 1
  end
  return found, order
end

local function spoil(v)
  local function mine() return "spoiled" end
  if type(v) == "table" then
    local keys = {}
    for k in next, v do keys[#keys + 1] = k end
    for i = 1, #keys do rawset(v, keys[i], i % 3 == 0 and mine or i % 3 == 1 and "spoiled" or nil) end
    rawset(v, "spoiled", "spoiled")
    rawset(v, 1, "spoiled")
    rawset(v, mine, "spoiled")
  end
  if type(v) == "thread" then resume(v, "spoiled") end
  if type(v) == "function" and v ~= retry then pcall(v) end
  local all = {__index = mine, __newindex = mine, __call = mine, __tostring = mine, __concat = mine, __add = mine, __eq = mine, __lt = mine, __len = mine, __metatable = "spoiled", spoiled = "spoiled"}
  local mt = getmetatable(v)
  if type(mt) == "table" then for k, f in next, all do if k ~= "__metatable" then pcall(rawset, mt, k, f) end end end
  pcall(setmetatable, v, all)
end

return function(event, ctx)
  local path = event.data.spoil
  local found, order = walk(event, ctx)
  if path then
    randomseed(99)
    random()
    local v = found[path].value
    spoiled = v
    spoil(v)
    return "spoiled"
  end
  local lines = {}
  for i = 1, #order do lines[i] = plain(order[i] .. " = " .. found[order[i]].text) end
  lines[#lines + 1] = "random = " .. random() .. " " .. random(1e6)
  lines[#lines + 1] = "spoiled = " .. tostring(spoiled)
  lines[#lines + 1] = "methods = " .. ("x"):rep(2) .. ("%d"):format(5) .. ("b"):upper() .. tostring(("x").spoiled) .. tostring("7" + 1) .. tostring(pcall(function() return "x" + 1 end))
  lines[#lines + 1] = "numbers = " .. tostring(pcall(function() return (5).x end)) .. tostring(pcall(function() return (print).x end)) .. tostring(pcall(function() return (true).x end))
  return lines
end`

var walkerFiles = map[string][]byte{
	"main.lua":     []byte(walker),
	"lib/util.lua": []byte("local hidden = {deep = {1}}\nreturn {n = 1, list = {1, 2}, hidden = function() return hidden end}"),
}

// carryover runs the walker on one Machine.
type carryover struct {
	t       testing.TB
	m       *Machine
	threads bool
}

func newCarryover(t testing.TB, threads bool) *carryover {
	m := New(Options{})
	require.Nil(t, m.Load("r", walkerFiles))
	return &carryover{t: t, m: m, threads: threads}
}

var carryoverAnswers = answers{
	state("value"): `{"a":[1,{"b":2}]}`, state("list"): `[1,[2,3]]`, shared("value"): `{"c":{"d":1}}`,
	{Kind: functions.ReadDevice, Name: "cellar"}: `{"temperature":20,"more":{"x":1}}`,
	{Kind: functions.ReadStateKeys}:              `["list","value"]`, {Kind: functions.ReadSharedKeys}: `["value"]`,
}

func (c *carryover) run(path string, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	inv := testInvocation()
	inv.Limits.EffectBytes = 1 << 20
	data := map[string]any{"threads": c.threads, "nested": map[string]any{"list": []int{1, 2}}}
	if path != "" {
		data["spoil"] = path
	}
	var err error
	inv.Event.Data, err = json.Marshal(data)
	require.NoError(c.t, err)
	inv.Env = []byte(`{"on":30,"nested":{"off":[28]}}`)
	out := runLoaded(c.m, inv, ask)
	require.Equal(c.t, !c.threads, c.m.spare != nil, "whether the state is kept")
	return out
}

// look is what a run sees, a line for each path.
func (c *carryover) look() []string {
	out := c.run("", carryoverAnswers.ask)
	require.Nil(c.t, out.Fault)
	var lines []string
	require.NoError(c.t, json.Unmarshal(out.Result, &lines))
	return lines
}

// spoil changes what is at a path.
func (c *carryover) spoil(path string) {
	out := c.run(path, carryoverAnswers.ask)
	require.Nil(c.t, out.Fault)
	require.Equal(c.t, `"spoiled"`, string(out.Result))
}

func TestNothingThatAFunctionCanReachCarriesOver(t *testing.T) {
	for _, threads := range []bool{false, true} { // a run that made coroutines leaves no state to be used again
		pristine := newCarryover(t, threads).look()
		c := newCarryover(t, threads)
		require.Equal(t, pristine, c.look())
		kinds := map[string]int{}
		for _, line := range pristine {
			path, what, _ := strings.Cut(line, " = ")
			kind, _, _ := strings.Cut(what, " ")
			if path == "random" || path == "spoiled" || path == "methods" || path == "numbers" || strings.Contains(what, " is ") && !strings.Contains(what, "metatable is") {
				continue
			}
			kinds[strings.TrimSuffix(kind, ",")]++
			if slices.Contains([]string{"string", "number", "boolean"}, kind) && strings.Count(path, ".") > 1 {
				continue // one of a kind is enough: setmetatable on a number is one for all numbers
			}
			t.Run(fmt.Sprintf("threads=%v/%s", threads, path), func(t *testing.T) {
				c.t = t
				c.spoil(path)
				require.Equal(t, pristine, c.look())
			})
		}
		t.Log(kinds)
		for _, kind := range []string{"table", "function", "userdata", "string", "number", "boolean"} {
			require.Positive(t, kinds[kind], kind)
		}
		require.Equal(t, threads, kinds["thread"] > 0)
		require.Greater(t, kinds["table"], 45, "the walk has lost its way")
	}
}

// The walk has been everywhere: each library's table, and the metatables that are hidden or made on demand.
func TestTheWalkFindsWhatIsThere(t *testing.T) {
	c := newCarryover(t, true)
	lines := strings.Join(c.look(), "\n")
	for name, l := range c.m.libs {
		if l.members != nil {
			require.Contains(t, lines, "globals."+name+" = table")
		}
	}
	for _, want := range []string{"text<metatable> = table", "globals.log<metatable> = table", "array<metatable> = table", "globals.json.null", "again.list = table",
		"hidden.deep = table", "closure.deeper = table", "thread = thread suspended", "event.data.nested.list = table", "ctx.env.nested.off = table", "state.a = table"} {
		require.Contains(t, lines, want)
	}
}

// reachable collects by address what a script could get hold of, in Go, where nothing is hidden by __metatable.
type reachable map[any]string

func (r reachable) visit(path string, v lua.LValue) {
	switch v := v.(type) {
	case *lua.LTable:
		if r[v] != "" {
			return
		}
		r[v] = path
		r.visit(path+"<metatable>", v.Metatable)
		v.ForEach(func(k, item lua.LValue) {
			r.visit(path+"(key)", k)
			r.visit(path+"."+k.String(), item)
		})
	case *lua.LFunction:
		if r[v] != "" || v.IsG && len(v.Upvalues) == 0 && v.Env == nil {
			return // a built-in function, which holds nothing that can change
		}
		r[v] = path
		if v.Env != nil {
			r.visit(path+"<env>", v.Env)
		}
		for i, u := range v.Upvalues {
			r.visit(fmt.Sprintf("%s<upvalue %d>", path, i), u.Value())
		}
	case *lua.LUserData:
		if r[v] != "" {
			return
		}
		r[v] = path
		r.visit(path+"<metatable>", v.Metatable)
		if v.Env != nil {
			r.visit(path+"<env>", v.Env)
		}
	case *lua.LState:
		if r[v] != "" {
			return
		}
		r[v] = path
		r.visit(path+"<env>", v.Env)
	}
}

// No table, userdata, coroutine or function with something of its own is the same object in two runs. The objects of the first
// are held here, so that the second cannot get their addresses.
func TestRunsShareNoObject(t *testing.T) {
	collect := func(c *carryover) reachable {
		found := reachable{}
		ask := func(q functions.Read) functions.ReadAnswer {
			if q.Name == "value" && q.Kind == functions.ReadShared { // once, with all that was read before
				r := c.m.now
				found.visit("globals", r.L.G.Global)
				k, _ := r.L.G.Registry.Next(lua.LNil)
				require.Equal(t, lua.LNil, k, "what the library keeps for itself")
				found.visit("environment", r.L.Env)
				if r.signalEnv != nil {
					found.visit("signal's environment", r.signalEnv)
				}
				found.visit("array mark", r.arrayMark())
				found.visit("front of strings", r.stringFront())
				for name, v := range r.modules {
					found.visit("module "+name, v)
				}
				for level := 0; ; level++ {
					dbg, ok := r.L.GetStack(level)
					if !ok {
						break
					}
					for i := 1; ; i++ {
						name, v := r.L.GetLocal(dbg, i)
						if name == "" {
							break
						}
						found.visit(fmt.Sprintf("local %s of level %d", name, level), v)
					}
				}
			}
			return carryoverAnswers.ask(q)
		}
		out := c.run("", ask)
		require.Nil(t, out.Fault)
		require.Greater(t, len(found), 60)
		return found
	}
	for _, threads := range []bool{false, true} {
		c := newCarryover(t, threads)
		first := collect(c)
		second := collect(c)
		for object, path := range second {
			before, shared := first[object]
			require.False(t, shared, "%s was there before, as %s", path, before)
		}
		t.Log(len(first), "objects of each run:", slices.Sorted(maps.Values(first))[:8], "…")
	}
}

// What all runs share for good is out of reach, and stays as it was made.
func TestWhatIsSharedStaysAsItIs(t *testing.T) {
	c := newCarryover(t, false)
	shape := func(mt *lua.LTable) map[string]lua.LValue {
		fields := map[string]lua.LValue{"metatable": mt.Metatable}
		mt.ForEach(func(k, v lua.LValue) { fields[k.String()] = v })
		return fields
	}
	before := shape(c.m.help.strings)
	for _, line := range c.look() {
		if path, what, _ := strings.Cut(line, " = "); strings.HasPrefix(what, "table") && !strings.Contains(what, " is ") {
			c.spoil(path)
		}
	}
	require.Equal(t, before, shape(c.m.help.strings))
	for _, l := range c.m.libs {
		for _, f := range l.members {
			require.True(t, f.IsG && f.Upvalues == nil && f.Env == nil)
		}
	}
}
