package broker

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mosquitto returns a command of a real client program against a broker.
func mosquitto(t *testing.T, r *running, version int, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	host, port, err := net.SplitHostPort(r.addr)
	require.NoError(t, err)
	v := map[int]string{4: "mqttv311", 5: "mqttv5"}[version]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, path, append([]string{"-h", host, "-p", port, "-V", v}, args...)...)
}

func TestMosquittoClients(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{}, "in/#")
		for qos := range 3 {
			out, err := mosquitto(t, r, version, "mosquitto_pub", "-t", "in/a", "-m", fmt.Sprint("hello ", qos), "-q", fmt.Sprint(qos), "-r").CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		r.e.wait(t, 3)
		require.Equal(t, []string{"hello 0", "hello 1", "hello 2"}, r.e.payloads())
		out, err := mosquitto(t, r, version, "mosquitto_sub", "-t", "in/#", "-C", "1", "-v").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "in/a hello 2\n", string(out))
	})
}

// A subscriber that takes 20 at a time gets everything, in order: mochi alone stops after 20 that had to wait.
func TestMosquittoSubscriberGetsMoreThanItsReceiveMaximum(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		for _, qos := range []string{"1", "2"} {
			r := start(t, Options{})
			const n = 600
			sub := mosquitto(t, r, version, "mosquitto_sub", "-t", "x/#", "-q", qos, "-C", fmt.Sprint(n))
			out, err := sub.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, sub.Start())
			eventually(t, "it subscribed", func() bool { return r.serving().mqtt.Info.Clone().Subscriptions == 1 })
			pub := mosquitto(t, r, version, "mosquitto_pub", "-t", "x/y", "-q", qos, "-l")
			var lines strings.Builder
			for i := range n {
				fmt.Fprintln(&lines, i)
			}
			pub.Stdin = strings.NewReader(lines.String())
			text, err := pub.CombinedOutput()
			require.NoError(t, err, "%s", text)
			got := bufio.NewScanner(out)
			for i := range n {
				require.True(t, got.Scan(), "line %d", i)
				require.Equal(t, fmt.Sprint(i), got.Text())
			}
			require.NoError(t, sub.Wait())
			r.stop()
		}
	})
}

func TestMosquittoResumesItsSession(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		st := openStore(t, t.TempDir())
		defer st.Close()
		r := start(t, Options{Store: st})
		args := []string{"-i", "resumer", "-c", "-t", "x/#", "-q", "1"}
		if version == 5 {
			args = append(args, "-x", "3600")
		}
		require.NoError(t, mosquitto(t, r, version, "mosquitto_sub", append(args, "-E")...).Run())
		const n = 100
		pub := func(from int) {
			var lines strings.Builder
			for i := range n {
				fmt.Fprintln(&lines, from+i)
			}
			cmd := mosquitto(t, r, version, "mosquitto_pub", "-t", "x/y", "-q", "1", "-l")
			cmd.Stdin = strings.NewReader(lines.String())
			require.NoError(t, cmd.Run())
		}
		pub(0)
		r.stop()
		r = start(t, Options{Store: st})
		pub(n)
		out, err := mosquitto(t, r, version, "mosquitto_sub", append(args, "-C", fmt.Sprint(2*n), "-W", "20")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		var want strings.Builder
		for i := range 2 * n {
			fmt.Fprintln(&want, i)
		}
		require.Equal(t, want.String(), string(out))
	})
}
