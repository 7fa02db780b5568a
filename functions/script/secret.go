package script

import (
	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

func secretFunctions() map[string]builtin {
	return map[string]builtin{"get": secretGet}
}

// secretGet returns the value of a secret, which came with the invocation.
func secretGet(r *run, L *lua.LState) int {
	name := checkString(L, 1)
	if !r.inv.Perms.AllowsSecret(name) {
		r.denied(L, "have the secret", name, functions.SecretHint(name))
	}
	for _, s := range r.inv.Secrets {
		if s.Name == name {
			L.Push(lua.LString(s.Value))
			return 1
		}
	}
	// Without it the function would not run, unless its file went away just now.
	L.RaiseError("the gateway has no secret '%s'", capped(name, 100))
	return 0
}
