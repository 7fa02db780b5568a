package demo

import (
	"context"
	"errors"
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

// hostile applies and runs attacks. Some time after the last one, and at the end, it takes the function away again: the directory is the
// user's, and what harms has no place in it.
type hostile struct {
	client stage
	ledger *ledger
	tell   func(kind, text string)
	stays  time.Duration // after an attack
	turn   int
	ask    chan struct{} // capacity 1
}

// stage is what an attack needs of the gateway.
type stage interface {
	Apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyResult, error)
	Invoke(ctx context.Context, name string, r *api.InvokeRequest) (*api.Invoked, error)
	Function(ctx context.Context, name string) (*api.Function, error)
	Remove(ctx context.Context, name string, purge bool) error
	DeadLetters(ctx context.Context, q api.DeadQuery) ([]api.DeadLetter, error)
	Drop(ctx context.Context, id string) error
}

const (
	hostileStays = 20 * time.Second // long enough to be seen in the list of functions
	hostileAgain = 2 * time.Second  // until the next try to take it away, while the gateway does not answer
	hostileLeave = 5 * time.Second  // how long the end waits for that
)

// attack asks for the next attack; it is not ok while one is under way and another one waits.
func (h *hostile) attack() bool {
	select {
	case h.ask <- struct{}{}:
		return true
	default:
		return false
	}
}

// Run carries attacks out until ctx ends. It also takes away what an earlier demo has left that could not.
func (h *hostile) Run(ctx context.Context) {
	over := time.NewTimer(h.stays)
	defer over.Stop()
	gone := false
	defer func() {
		if !gone {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), hostileLeave)
			defer cancel()
			_ = h.remove(last) // the next demo does it
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			if gone = h.remove(ctx) == nil; !gone {
				over.Reset(hostileAgain)
			}
		case <-h.ask:
			gone = false
			h.next(ctx)
			over.Reset(h.stays)
		}
	}
}

// remove takes the function away with what its events came to, unless it is somebody else's.
func (h *hostile) remove(ctx context.Context) error {
	f, err := h.client.Function(ctx, hostileName)
	switch {
	case api.IsCode(err, api.CodeNotFound):
		return nil
	case err != nil:
		return err
	case f.Origin != "applied":
		return nil
	}
	letters, err := h.client.DeadLetters(ctx, api.DeadQuery{Function: hostileName})
	for _, l := range letters {
		err = errors.Join(err, h.client.Drop(ctx, l.ID))
	}
	return errors.Join(err, h.client.Remove(ctx, hostileName, true))
}

// next carries the next attack out, and tells what came of it.
func (h *hostile) next(ctx context.Context) {
	list := attacks()
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
