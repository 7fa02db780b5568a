package script

import (
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// BenchmarkBare is the least that a call of Lua costs: a function that is loaded already, on a state that is never renewed, with nothing
// isolated and nothing to read or to say.
func BenchmarkBare(b *testing.B) {
	L := lua.NewState()
	defer L.Close()
	if err := L.DoString(`n = 0 function call(event) n = n + 1 return event.temperature end`); err != nil {
		b.Fatal(err)
	}
	event := L.NewTable()
	event.RawSetString("temperature", lua.LNumber(21.5))
	call := lua.P{Fn: L.GetGlobal("call"), NRet: 1, Protect: true}
	b.ReportAllocs()
	for b.Loop() {
		if err := L.CallByParam(call, event); err != nil {
			b.Fatal(err)
		}
		L.Pop(1)
	}
}
