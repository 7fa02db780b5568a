package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/gateway/api"
)

const poster = `
return function(event, ctx)
  if event.reply then
    state.set("got", event.data)
    return
  end
  log("with", secret.get("token"))
  http.post(ctx.env.url .. "/v1/x", {n = event.data.n}, {reply = "posted", headers = {Authorization = "Bearer " .. secret.get("token")}})
end`

// A function with a secret waits for it, calls with it, and hears of the answer.
func TestAFunctionCallsWithASecret(t *testing.T) {
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"auth": r.Header.Get("Authorization"), "body": string(b)})
	}))
	defer far.Close()
	s := newSite(t)
	s.config("secrets: {token: {file: token.txt}}\n")
	s.function("poster", "triggers: [{mqtt: a/#}]\nenv: {url: '"+far.URL+"'}\npermissions: {http: ['"+far.URL+"/v1/*'], secrets: [token]}\n", poster)
	a := s.open()
	fns, err := a.Functions(t.Context())
	require.NoError(t, err)
	require.Equal(t, "blocked", fns[0].State)
	require.Equal(t, `needs secret "token"; add it under secrets: in gateway.yaml`, fns[0].Reason)
	status, err := a.Status(t.Context())
	require.NoError(t, err)
	require.Contains(t, status.Problems[0], `secret "token": there is no file`)

	file := filepath.Join(s.dir, "token.txt")
	require.NoError(t, os.WriteFile(file, []byte("s3cret-token\n"), 0o600))
	_, err = a.Reload(t.Context())
	require.NoError(t, err)
	status, err = a.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, status.Problems)
	done := invoke(t, a, "poster", `{"n":5}`)
	require.Nil(t, done.Fault)
	require.Equal(t, []string{"http POST " + far.URL + "/v1/x"}, done.Effects)
	require.Equal(t, "with ***", done.Logs[0].Text)
	var got []byte
	require.Eventually(t, func() bool {
		got, _, err = state.Value(a.st, state.Keyed("poster", ""), "got")
		return err == nil && got != nil
	}, 20*time.Second, 10*time.Millisecond)
	var data struct {
		Status int
		Body   struct{ Auth, Body string }
	}
	require.NoError(t, json.Unmarshal(got, &data))
	require.Equal(t, 200, data.Status)
	require.Equal(t, "Bearer s3cret-token", data.Body.Auth)
	require.Equal(t, `{"n":5}`, data.Body.Body)

	require.NoError(t, os.Remove(file))
	r, err := a.Reload(t.Context())
	require.NoError(t, err)
	require.Contains(t, r.Changed, `function poster blocked: needs secret "token"; add it under secrets: in gateway.yaml`)
	var lines []api.LogLine
	require.NoError(t, a.Logs(t.Context(), api.LogQuery{}, func(l api.LogLine) error { lines = append(lines, l); return nil }))
	text, err := json.Marshal(lines)
	require.NoError(t, err)
	require.NotContains(t, string(text), "s3cret")
}
