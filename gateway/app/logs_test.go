package app

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/config"
)

// A duration reads the same in both forms of the log, wherever it stands.
func TestDurationsInTheLog(t *testing.T) {
	for format, want := range map[string]string{
		"json": `"in":"1.2s","a":{"took":"90ms"},"with":"2m0s"`,
		"text": `in=1.2s a.took=90ms with=2m0s`,
	} {
		var b bytes.Buffer
		log, _ := NewLog(&b, config.Log{Level: "info", Format: format})
		log.Info("x", "in", 1200*time.Millisecond, slog.Group("a", "took", 90*time.Millisecond), "with", any(2*time.Minute))
		require.Contains(t, b.String(), want)
		b.Reset()
		log.With("with", time.Minute).Info("x")
		require.Contains(t, b.String(), "1m0s")
	}
}
