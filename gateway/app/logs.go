package app

import (
	"io"
	"log/slog"
	"os"

	"github.com/mattn/go-isatty"

	"github.com/perigee-iot/perigee/gateway/config"
)

// NewLog makes the gateway's log as the configuration says: text for a person at a terminal, JSON for a machine. The
// level can be changed while it is in use.
func NewLog(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	level.Set(c.SlogLevel())
	o := &slog.HandlerOptions{Level: level}
	text := c.Format == "text"
	if f, ok := w.(*os.File); ok && c.Format == "auto" {
		text = isatty.IsTerminal(f.Fd())
	}
	if text {
		return slog.New(slog.NewTextHandler(w, o)), level
	}
	o.ReplaceAttr = spellDuration
	return slog.New(slog.NewJSONHandler(w, o)), level
}

// spellDuration writes a duration as text does, "1.2s": in JSON it would be a number of which nobody can see that it is nanoseconds.
func spellDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
