package script

import (
	"cmp"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// httpFunctions make effects: a call goes out once its invocation is committed, and its answer comes as an event.
func httpFunctions() map[string]builtin {
	without := func(method string) builtin {
		return func(r *run, L *lua.LState) int { return r.callHTTP(L, method, 1, 0, 2) }
	}
	with := func(method string) builtin {
		return func(r *run, L *lua.LState) int { return r.callHTTP(L, method, 1, 2, 3) }
	}
	return map[string]builtin{
		"get": without("GET"), "delete": without("DELETE"), "post": with("POST"), "put": with("PUT"), "patch": with("PATCH"),
		"request": func(r *run, L *lua.LState) int {
			return r.callHTTP(L, strings.ToUpper(checkString(L, 1)), 2, 3, 4)
		},
	}
}

// callHTTP adds the effect of a call whose URL, body and options are these arguments; body 0: it has none.
func (r *run) callHTTP(L *lua.LState, method string, url, body, options int) int {
	raw := checkString(L, url)
	u, err := functions.ParseURL(raw)
	if err != nil {
		L.ArgError(url, err.Error())
	}
	if _, ok := r.inv.Perms.AllowsHTTP(u); !ok {
		r.denied(L, "call", raw, functions.HTTPHint(raw))
	}
	call := functions.HTTPCall{Method: method, Timeout: functions.DefaultHTTPTimeout}
	kind := ""
	if body > 0 {
		call.Body, kind = r.httpBody(L, L.Get(body))
	}
	opts := r.options(L, options, "headers", "reply", "timeout", "not_after")
	call.Headers = r.httpHeaders(L, opts, options, kind)
	if v, ok := opts["reply"]; ok {
		text, isText := plainText(v)
		if !isText || text == "" {
			L.ArgError(options, "reply is a name, which event.reply has when the answer comes")
		}
		call.Reply = text
	}
	if t := r.durationOption(L, opts, options, "timeout"); t > 0 {
		call.Timeout = t
	}
	e := functions.Effect{Kind: functions.CallHTTP, Name: u.String(), NotAfter: r.durationOption(L, opts, options, "not_after")}
	if e.NotAfter == 0 {
		e.NotAfter = functions.DefaultHTTPLife
	}
	if e.NotAfter > functions.MaxHTTPLife {
		L.ArgError(options, "not_after is at most 7d")
	}
	if err := call.Check(); err != nil {
		r.haltf(L, functions.FaultBadOutput, "", "http: %s", capped(err.Error(), 300))
	}
	e.Value = call.Encode()
	r.add(L, e)
	return 0
}

// httpBody is what is sent, and the type that it has if no header says another.
func (r *run) httpBody(L *lua.LState, v lua.LValue) (body []byte, kind string) {
	switch v := v.(type) {
	case *lua.LNilType:
		return nil, ""
	case lua.LString:
		return []byte(v), "text/plain; charset=utf-8"
	}
	return r.encode(L, "http", v), "application/json"
}

func (r *run) httpHeaders(L *lua.LState, opts map[string]lua.LValue, n int, kind string) (list []functions.HTTPHeader) {
	if v := option(opts, "headers"); v != lua.LNil {
		t, ok := v.(*lua.LTable)
		if !ok {
			L.ArgError(n, "headers is a table such as {Authorization = \"Bearer …\"}")
			return nil
		}
		for k, v := t.Next(lua.LNil); k != lua.LNil && len(list) <= functions.MaxHTTPHeaders; k, v = t.Next(k) {
			name, isName := k.(lua.LString)
			text, isText := plainText(v)
			if !isName || !isText {
				L.ArgError(n, "headers has names and texts only")
			}
			list = append(list, functions.HTTPHeader{Name: string(name), Value: text})
		}
	}
	if kind != "" && !slices.ContainsFunc(list, func(h functions.HTTPHeader) bool { return strings.EqualFold(h.Name, "content-type") }) {
		list = append(list, functions.HTTPHeader{Name: "Content-Type", Value: kind})
	}
	slices.SortFunc(list, func(a, b functions.HTTPHeader) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
