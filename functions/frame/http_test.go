package frame

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

func TestCallsAndSecrets(t *testing.T) {
	inv := invocation()
	inv.Perms.HTTP = []functions.HTTPRule{{Origin: "https://a.example", Path: "/v1/", Prefix: true}, {Origin: "http://nas", Path: "/", Private: true}}
	inv.Perms.Secrets = []string{"token"}
	inv.Secrets = []functions.Secret{{Name: "token", Value: "s3cret"}}
	b, err := AppendRun(nil, inv)
	got, err := DecodeRun(body(t, Run, ToWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, inv, got)

	call := (&functions.HTTPCall{Method: "GET", Reply: "r"}).Encode()
	o := &functions.Outcome{ID: 1, Effects: []functions.Effect{{Kind: functions.CallHTTP, Name: "https://a.example/v1/x", Value: call, NotAfter: 5}}}
	b, err = AppendOutcome(nil, o)
	decoded, err := DecodeOutcome(body(t, Outcome, FromWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, o, decoded)
}
