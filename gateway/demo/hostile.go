package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
)

// attack is a function that means harm.
type attack struct {
	name string
	main string
}

// hostileName is the function that the attacks are revisions of.
const hostileName = "hostile"

const hostileSpec = `description: Tries to do harm, and cannot
triggers:
  - mqtt: demo/hostile
limits: {timeout: 500ms}
permissions:
  publish: [demo/flood]
retry: {attempts: 1}
`

// attacks are tried in turn.
func attacks() []attack {
	return []attack{
		{"an endless loop", `return function() while true do end end`},
		{"a memory bomb", `return function()
  local t = {}
  for i = 1, 1e9 do t[i] = {i, {}} end
end`},
		{"a giant string", `return function()
  local s = "perigee"
  while true do s = s .. s end
end`},
		{"a pattern without end", `return function()
  return string.find(("a"):rep(50000), (".-"):rep(30) .. "b")
end`},
		{"a write to another's fan", `return function() device.write("fan", true) end`},
		{"endless recursion", `local function f(x) return 1 + f(x) end
return function() return f(1) end`},
		{"a flood of messages", `return function()
  for i = 1, 1e6 do publish("demo/flood", i) end
end`},
		{"a loop of pcall", `return function()
  while true do pcall(function() while true do end end) end
end`},
	}
}

// hostile applies and runs attacks.
type hostile struct {
	client *api.Client
	ledger *ledger
	tell   func(kind, text string)
	turn   int
	ask    chan struct{} // capacity 1
}

// attack asks for the next attack; it is not ok while one is under way and another one waits.
func (h *hostile) attack() bool {
	select {
	case h.ask <- struct{}{}:
		return true
	default:
		return false
	}
}

// Run carries attacks out until ctx ends.
func (h *hostile) Run(ctx context.Context) {
	list := attacks()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.ask:
		}
		a := list[h.turn%len(list)]
		h.turn++
		before := h.ledger.read()
		inv, err := h.run(ctx, a)
		if ctx.Err() != nil {
			return
		}
		after := h.ledger.read()
		switch {
		case err != nil:
			h.tell(bad, fmt.Sprintf("%s was not run: %s", a.name, firstLine(err.Error())))
		case inv.Fault == nil:
			h.tell(bad, a.name+" was not stopped")
		default:
			h.tell(good, fmt.Sprintf("stopped %s: %s, %s; %d others ran, %d lost", a.name, inv.Fault.Kind, brief(inv.Wall),
				after.Published-before.Published, after.Lost-before.Lost))
		}
	}
}

func (h *hostile) run(ctx context.Context, a attack) (*api.Invoked, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := h.client.Apply(ctx, &api.ApplyRequest{Name: hostileName, Take: true,
		Files: map[string][]byte{"function.yaml": []byte(hostileSpec), "main.lua": []byte(a.main + "\n")}})
	if err != nil {
		return nil, err
	}
	return h.client.Invoke(ctx, hostileName, &api.InvokeRequest{})
}
