package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
)

func TestEveryMethodHasARouteAndAClientMethod(t *testing.T) {
	routes := api.Routes(api.NewServer(apitest.New(), quiet))
	client := reflect.TypeFor[*api.Client]()
	patterns := map[string]bool{}
	for _, m := range api.GatewayMethods() {
		require.NotEmpty(t, routes[m], "no route asks the gateway for %s", m)
		require.False(t, patterns[routes[m]], "%s stands twice", routes[m])
		patterns[routes[m]] = true
		_, ok := client.MethodByName(m)
		require.True(t, ok, "the client has no %s", m)
	}
	require.Len(t, routes, len(api.GatewayMethods()))
}

func ask(gw api.Gateway, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	} else {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
	}
	api.NewServer(gw, quiet).ServeHTTP(w, r)
	return w
}

func TestBadRequests(t *testing.T) {
	big := `{"reason":"` + strings.Repeat("x", api.MaxBody) + `"}`
	for _, tc := range []struct {
		method, target, body string
		status               int
		message              string
	}{
		{"GET", "/v1/nothing", "", 400, "this gateway does not know the request GET /v1/nothing"},
		{"POST", "/v1/status", "", 400, "this gateway does not know the request POST /v1/status"},
		{"GET", "/v1/status", "{}", 400, "GET /v1/status takes no body"},
		{"POST", "/v1/functions", "", 400, "the request's body is empty, it should be JSON"},
		{"POST", "/v1/functions", "{", 400, "the request's body: unexpected EOF"},
		{"POST", "/v1/functions", `{"nam":"x"}`, 400, `the request's body: json: unknown field "nam"`},
		{"POST", "/v1/functions", `{"name":7}`, 400, "the request's body: json: cannot unmarshal number into Go struct field ApplyRequest.name of type string"},
		{"POST", "/v1/functions", `{} {}`, 400, "the request's body: something follows the JSON value"},
		{"POST", "/v1/functions/overheat/pause", big, 400, "the request is larger than 2 MiB"},
		{"POST", "/v1/functions/overheat/pause", "{}" + strings.Repeat(" ", api.MaxBody), 400, "the request is larger than 2 MiB"},
		{"DELETE", "/v1/functions/overheat?purge=perhaps", "", 400, `purge is "perhaps", it should be true or false`},
		{"GET", "/v1/logs?limit=-1", "", 400, `limit is "-1", it should be a whole number from 0`},
		{"GET", "/v1/events?limit=many", "", 400, `limit is "many", it should be a whole number from 0`},
		{"GET", "/v1/usage?since=never", "", 400, `since is "never", it should be a time, such as 24h`},
		{"GET", "/v1/usage?by=week", "", 400, `by is "week", it should be hour or day`},
		{"GET", "/v1/advice?x=%zz", "", 400, `the request's parameters: invalid URL escape "%zz"`},
		{"GET", "/v1/dead?limit=1%zz", "", 400, `the request's parameters: invalid URL escape "%zz"`},
		{"GET", "/v1/state/overheat?key=a&shared=true", "", 400, "shared state has no key: give one of both"},
		{"PUT", "/v1/state/overheat?name=hot", "tru", 400, "the request's body: unexpected EOF"},
		{"GET", "/v1/functions/none", "", 404, `there is no function "none"`},
	} {
		w := ask(apitest.Sample(), tc.method, tc.target, tc.body)
		var e api.Error
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), "%s %s: %s", tc.method, tc.target, w.Body)
		require.Equal(t, tc.message, e.Message)
		require.Equal(t, tc.status, w.Code, tc.target)
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	w := ask(panics{apitest.New()}, "GET", "/v1/status", "")
	require.Equal(t, 500, w.Code)
	require.Contains(t, w.Body.String(), "the gateway has a defect: oh")
}

type panics struct{ *apitest.Fake }

func (panics) Status(context.Context) (*api.Status, error) { panic("oh") }

func TestRequestsAtOnceAreBounded(t *testing.T) {
	f := apitest.Sample()
	c, _ := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, api.MaxRequests)
	for range api.MaxRequests {
		go func() { ended <- c.Logs(ctx, api.LogQuery{Follow: true}, func(api.LogLine) error { return nil }) }()
	}
	eventually(t, "all slots to be taken", func() bool { return f.Following() == api.MaxRequests })
	_, err := c.Status(t.Context())
	require.True(t, api.IsCode(err, api.CodeUnavailable), "%v", err)
	cancel()
	for range api.MaxRequests {
		<-ended
	}
	eventually(t, "a free slot", func() bool { _, err := c.Status(t.Context()); return err == nil })
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	ln, err := api.Listen(socketPath(t))
	require.NoError(t, err)
	ln.Close()
	require.ErrorContains(t, api.NewServer(apitest.New(), nil).Serve(t.Context(), ln), "control API on")
}

func TestListen(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	path := filepath.Join(dir, "made", "p.sock")

	ln, err := api.Listen(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeSocket|0o660, info.Mode())
	info, err = os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o007, "others have no business in the directory")

	_, err = api.Listen(path)
	require.True(t, api.IsCode(err, api.CodeConflict), "%v", err)
	exe, _ := os.Executable()
	require.ErrorContains(t, err, ": process ")
	require.ErrorContains(t, err, exe[:min(len(exe), 40)])

	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	_, err = os.Lstat(path)
	require.NoError(t, err, "the stale socket is there")
	ln, err = api.Listen(path)
	require.NoError(t, err, "a stale socket prevents nothing")
	ln.Close()
	require.NoFileExists(t, path)

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = api.Listen(path)
	require.ErrorContains(t, err, "there is something else by that name")
	b, _ := os.ReadFile(path)
	require.Equal(t, "precious", string(b))

	_, err = api.Listen("/" + strings.Repeat("x", 120))
	require.ErrorContains(t, err, "set api.socket to a shorter one")
	_, err = api.Listen(filepath.Join(path, "p.sock"))
	require.ErrorContains(t, err, "its directory")
}

// TestListenAtOnce: of many that start at once, over a stale socket, exactly one listens.
func TestListenAtOnce(t *testing.T) {
	path := socketPath(t)
	stale, err := net.Listen("unix", path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	got := make(chan net.Listener, 8)
	for range 8 {
		go func() {
			ln, _ := api.Listen(path)
			got <- ln
		}()
	}
	won := 0
	for range 8 {
		if ln := <-got; ln != nil {
			won++
			defer ln.Close()
		}
	}
	require.Equal(t, 1, won)
}

// TestCurl keeps the promise that scripts may use curl, if there is one.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	c, _ := serve(t, apitest.Sample())
	out, err := exec.CommandContext(t.Context(), curl, "-sS", "--unix-socket", c.Socket(), "http://x/v1/logs").Output()
	require.NoError(t, err)
	require.Len(t, bytes.Split(bytes.TrimSpace(out), []byte("\n")), 3)
}

func FuzzRequest(f *testing.F) {
	for _, s := range [][3]string{
		{"GET", "/v1/status", ""}, {"POST", "/v1/functions", `{"name":"x","files":{"function.yaml":"e30="}}`}, {"PUT", "/v1/state/overheat?name=hot&key=", "true"},
		{"POST", "/v1/dead/d1/replay", `{"data":"AAA="}`}, {"PUT", "/v1/devices/fan", `{"value":[1]}`}, {"GET", "/v1/logs?limit=1", ""}, {"GET", "/v1/functions/%2e%2e", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what follows ends at once
		r, err := http.NewRequestWithContext(ctx, method, "http://x/"+strings.TrimPrefix(target, "/"), strings.NewReader(body))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		api.NewServer(apitest.Sample(), quiet).ServeHTTP(w, r)
		require.NotEqual(t, 500, w.Code, w.Body)
		if w.Code >= 400 && w.Header().Get("Content-Type") == "application/json" {
			var e api.Error
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
			require.NotEmpty(t, e.Message)
			require.NotEmpty(t, e.Code)
		}
	})
}
