package script

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

// outside is an invocation that may call and has a secret.
func outside() *functions.Invocation {
	inv := testInvocation()
	inv.Perms.HTTP = []functions.HTTPRule{{Origin: "https://api.example.com", Path: "/v1/", Prefix: true}}
	inv.Perms.Secrets = []string{"token", "gone"}
	inv.Secrets = []functions.Secret{{Name: "token", Value: "s3cret-value"}}
	return inv
}

func TestHTTPCalls(t *testing.T) {
	m := New(Options{})
	const url = "https://api.example.com/v1/x"
	header := func(pairs ...string) (list []functions.HTTPHeader) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, functions.HTTPHeader{Name: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	for code, want := range map[string]functions.HTTPCall{
		`http.get(U)`:                {Method: "GET"},
		`http.get(U, {reply = "r"})`: {Method: "GET", Reply: "r"},
		`http.delete(U)`:             {Method: "DELETE"},
		`http.post(U, {a = 1})`:      {Method: "POST", Body: []byte(`{"a":1}`), Headers: header("Content-Type", "application/json")},
		`http.put(U, "text")`:        {Method: "PUT", Body: []byte("text"), Headers: header("Content-Type", "text/plain; charset=utf-8")},
		`http.patch(U, 1.5)`:         {Method: "PATCH", Body: []byte("1.5"), Headers: header("Content-Type", "application/json")},
		`http.post(U)`:               {Method: "POST"},
		`http.request("options", U)`: {Method: "OPTIONS"},
		`http.request("POST", U, "x", {headers = {["content-TYPE"] = "a/b", Authorization = "Bearer " .. secret.get("token"), ["X-N"] = 5}})`: {
			Method: "POST", Body: []byte("x"), Headers: header("Authorization", "Bearer s3cret-value", "X-N", "5", "content-TYPE", "a/b")},
		`http.get(U, {timeout = "3s"})`: {Method: "GET", Timeout: 3 * time.Second},
	} {
		out := runWith(t, m, outside(), "local U = '"+url+"'\n"+body(code), noAnswers)
		require.Nil(t, out.Fault, code)
		require.Len(t, out.Effects, 1)
		e := out.Effects[0]
		require.Equal(t, functions.CallHTTP, e.Kind)
		require.Equal(t, url, e.Name)
		require.Equal(t, time.Hour, e.NotAfter)
		got, err := functions.DecodeHTTPCall(e.Value)
		require.NoError(t, err)
		if want.Timeout == 0 {
			want.Timeout = functions.DefaultHTTPTimeout
		}
		require.Equal(t, &want, got, code)
	}
	out := runWith(t, m, outside(), body(`http.get("HTTPS://API.example.com:443/v1/x?q=a", {not_after = "2d"})`), noAnswers)
	require.Equal(t, "https://api.example.com/v1/x?q=a", out.Effects[0].Name)
	require.Equal(t, 48*time.Hour, out.Effects[0].NotAfter)
}

func TestHTTPCallsThatAreNone(t *testing.T) {
	m := New(Options{})
	for code, want := range map[string]string{
		`http.get("http://api.example.com/v1/x")`:       `denied: main.lua:2: may not call 'http://api.example.com/v1/x'`,
		`http.get("https://api.example.com/v2/x?t=1")`:  `denied: main.lua:2: may not call`,
		`http.get("https://api.example.com/v1/../x")`:   `error: main.lua:2: bad argument #1 to get`,
		`http.get("file:///etc/passwd")`:                `is no URL that begins with https://`,
		`http.get()`:                                    `string expected, got no value`,
		`http.get(U, {reply = true})`:                   `reply is a name`,
		`http.get(U, {replay = "r"})`:                   `no option is called 'replay'; there are: headers, reply, timeout, not_after`,
		`http.get(U, {timeout = "2m"})`:                 `bad-output: main.lua:2: http: timeout is at most 1m0s`,
		`http.get(U, {not_after = "8d"})`:               `not_after is at most 7d`,
		`http.get(U, {headers = "x"})`:                  `headers is a table`,
		`http.get(U, {headers = {a = {}}})`:             `headers has names and texts only`,
		`http.get(U, {headers = {"x"}})`:                `headers has names and texts only`,
		`http.get(U, {headers = {Host = "x"}})`:         `header "Host" is the gateway's own`,
		`http.get(U, {headers = {a = "x\r\nHost: y"}})`: `has a line break`,
		`http.post(U, print)`:                           `http: the value is a function, which JSON does not have`,
		`http.post(U, ("x"):rep(70000))`:                `limits.effect_bytes: 70082 bytes, 65536 are allowed`,
		`http.request("BREW", U)`:                       `"BREW" is no method`,
		`secret.get("other")`:                           `denied: main.lua:2: may not have the secret 'other'`,
		`secret.get("gone")`:                            `error: main.lua:2: the gateway has no secret 'gone'`,
		`for i = 1, 100 do http.get(U) end`:             `limits.effects: 65 effects, 64 are allowed`,
	} {
		out := runWith(t, m, outside(), `local U = "https://api.example.com/v1/" `+body(code), noAnswers)
		require.NotNil(t, out.Fault, code)
		require.Contains(t, out.Fault.Error(), want, code)
		require.NotContains(t, out.Fault.Text(), "s3cret")
	}
	out := runWith(t, m, outside(), body(`pcall(http.get, "https://other.example/a?key=1")`), noAnswers)
	require.Equal(t, `add to function.yaml: permissions: {http: ["https://other.example/a"]}`, out.Fault.Hint)
	out = runWith(t, m, outside(), body(`pcall(secret.get, "x")`), noAnswers)
	require.Equal(t, `add to function.yaml: permissions: {secrets: [x]}`, out.Fault.Hint)
}

func TestRepliesAndSecrets(t *testing.T) {
	m := New(Options{})
	inv := outside()
	inv.Event = &event.Event{Type: event.Reply, Subject: "posted", Data: []byte(`{"status":200,"body":{"n":1}}`)}
	require.Equal(t, `["posted",200,1]`, string(runWith(t, m, inv, body(`return {event.reply, event.data.status, event.data.body.n}`), noAnswers).Result))
	require.Equal(t, `"s3cret-value"`, string(runWith(t, m, outside(), body(`return secret.get("token")`), noAnswers).Result))
}
