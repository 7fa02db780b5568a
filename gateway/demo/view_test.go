package demo

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/gateway/screen"
)

var update = flag.Bool("update", false, "write the golden frames anew")

// testModel is a demo in the middle of its work.
func testModel() *model {
	at := time.Date(2026, 3, 1, 14, 3, 20, 0, time.Local)
	history := make([]float64, 60)
	for i := range history {
		history[i] = 18 + float64(i%20)
	}
	feed := []line{
		{Kind: plain, Text: "cellar 31.2 °C → overheat: hot true"},
		{Kind: did, Text: "timer signal.alarm.hot → overheat: fan = true, publish alerts/overheat, record alerts"},
		{Kind: you, Text: "you cut the link to the cloud; what is for it waits on the gateway's disk"},
		{Kind: bad, Text: "function overheat: main.lua:3: syntax error near '='; the old revision stays"},
		{Kind: good, Text: "stopped a memory bomb: memory, 89 ms; 2 others ran, 0 lost"},
		{Kind: plain, Text: "zigbee2mqtt/küche 温度\x1b[2J 21 °C → climate: mean 20.8"},
	}
	for i := range feed {
		feed[i].Time = at.Add(time.Duration(i) * time.Second)
	}
	return &model{
		Now: at.Add(10 * time.Second), Edit: "perigee-demo/functions/overheat/main.lua",
		Gateway: childState{PID: 4711, Ready: true, Since: at.Add(-73 * time.Second), Kills: 2},
		Devices: []deviceRow{
			{Name: "cellar", Value: 31.24, Unit: "°C", History: history}, {Name: "attic", Value: 8, Unit: "°C", History: history[:5]},
			{Name: "box", Value: 0.7, Unit: "load"}, {Name: "fan", Text: "on"}, {Name: "lamp", Text: "off"}, {Name: "button", Text: "at 14:03:02"},
		},
		Functions: []functionRow{
			{Name: "climate", State: "active", Runs: 17, OK: 17, P99: 1020 * time.Microsecond, CPU: 370 * time.Microsecond, Remark: "Pass on what is new, per room"},
			{Name: "hostile", State: "active", Runs: 8, P99: 524 * time.Millisecond, CPU: 199 * time.Millisecond, Remark: "timeout: main.lua:2: took longer than 500ms"},
			{Name: "lamp", State: "active", Remark: "A button switches a lamp"},
			{Name: "overheat", State: "blocked", Runs: 55, OK: 54, P99: 2050 * time.Microsecond, CPU: 240 * time.Microsecond, Remark: `needs device "fan"`},
		},
		Link:  linkRow{Up: true, For: 8 * time.Second, Waiting: 1234, Sent: 98765, Rate: 400, Drain: 3 * time.Second},
		Proof: counts{Accepted: 12345, Committed: 11111, Repeats: 3, Waiting: 1234},
		Feed:  feed,
	}
}

// TestFrames compares frames of a fixed model with those that somebody has looked at.
func TestFrames(t *testing.T) {
	lost := testModel()
	lost.Proof.Lost, lost.Proof.Doubled = 1, 2
	lost.Link = linkRow{Cut: true, For: 95 * time.Second, Waiting: 1}
	lost.Gateway = childState{Trouble: `the gateway ended: "the store is full"`}
	tests := []struct {
		name       string
		m          *model
		st         screen.Style
		cols, rows int
	}{
		{"24x80", testModel(), screen.Style{}, 80, 24},
		{"24x80-ascii", testModel(), screen.Style{ASCII: true}, 80, 24},
		{"24x80-colour", testModel(), screen.Style{Colour: true}, 80, 24},
		{"24x80-trouble", lost, screen.Style{}, 80, 24},
		{"40x120", testModel(), screen.Style{}, 120, 40},
		{"24x60", testModel(), screen.Style{}, 60, 24},
		{"12x40", testModel(), screen.Style{}, 40, 12},
		{"5x20", testModel(), screen.Style{}, 20, 5},
		{"24x80-empty", &model{Now: lost.Now, Edit: lost.Edit}, screen.Style{}, 80, 24},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(frame(tt.m, tt.st, tt.cols, tt.rows), "\n") + "\n"
			file := filepath.Join("testdata", tt.name+".frame")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got, "if it is meant: go test ./gateway/demo -run TestFrames -update")
		})
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestFramesFit: on any screen a frame has as many lines as there are, and no line is wider or, unless it is empty, narrower.
func TestFramesFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := testModel()
		m.Link.Cut = rapid.Bool().Draw(t, "cut")
		m.Proof.Lost = rapid.Int64().Draw(t, "lost")
		m.Functions[0].Name = rapid.String().Draw(t, "name")
		m.Devices[0].Name = rapid.String().Draw(t, "device")
		m.Devices[0].Value = rapid.Float64().Draw(t, "value")
		m.Devices[4].Text = rapid.String().Draw(t, "text")
		m.Feed[0].Text = rapid.String().Draw(t, "feed")
		st := screen.Style{ASCII: rapid.Bool().Draw(t, "ascii"), Colour: rapid.Bool().Draw(t, "colour")}
		cols, rows := rapid.IntRange(1, 200).Draw(t, "cols"), rapid.IntRange(1, 60).Draw(t, "rows")
		lines := frame(m, st, cols, rows)
		require.Len(t, lines, rows)
		for i, l := range lines {
			bare := escapes.ReplaceAllString(l, "")
			require.NotContains(t, bare, "\x1b")
			if bare != "" {
				require.Equal(t, cols, screen.Cells(bare), "line %d of %dx%d: %q", i+1, rows, cols, bare)
			}
		}
	})
}
