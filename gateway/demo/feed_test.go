package demo

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/api"
)

func TestLinesOfEvents(t *testing.T) {
	done := func(fn string, effects []string, result string) api.LifeOutcome {
		return api.LifeOutcome{Function: fn, What: "committed", Effects: effects, Result: result}
	}
	tests := []struct {
		name string
		life api.Life
		want string // kind, bar, text; "" for none
	}{
		{"a result", api.Life{Subject: "cellar", Preview: `{"temperature":31.2}`, Outcomes: []api.LifeOutcome{done("overheat", nil, `{"hot":true}`)}},
			"|cellar 31.2 °C → overheat: hot true"},
		{"effects", api.Life{Subject: "signal.alarm.hot", Type: "timer", Outcomes: []api.LifeOutcome{done("overheat",
			[]string{"state signal.alarm.hot = 1", "device fan = true", `publish alerts/overheat {"room":"cellar"}`, "stream alerts", "stream alerts", "timer x in 3s"}, "")}},
			"did|timer signal.alarm.hot → overheat: fan = true, publish alerts/overheat, record alerts"},
		{"two functions", api.Life{Subject: "zigbee2mqtt/door", Preview: `{"battery":93,"contact":true}`, Outcomes: []api.LifeOutcome{
			{Function: "climate", What: "skipped", Why: `has: the payload has no field "temperature"`}, done("door", nil, "")}},
			`|zigbee2mqtt/door contact true → climate not woken: the payload has no field "temperature"; door ok`},
		{"a fault", api.Life{Subject: "a", Preview: "17", Outcomes: []api.LifeOutcome{{Function: "f", What: "dead",
			Fault: &functions.Fault{Kind: functions.FaultError, Message: "main.lua:3: no"}}, done("g", []string{"device fan = true"}, "")}},
			"bad|a 17 → f: error: main.lua:3: no; g: fan = true"},
		{"retry", api.Life{Subject: "a", Outcomes: []api.LifeOutcome{{Function: "f", What: "retry", Why: "again in 200ms"}}}, "bad|a → f: again in 200ms"},
		{"refused", api.Life{Subject: "a", Preview: "{", Refused: "too large"}, "bad|a { → refused: too large"},
		{"not yet", api.Life{Subject: "a", Outcomes: []api.LifeOutcome{{Function: "f", What: "running"}}}, ""},
		{"nobody", api.Life{Subject: "a", Accepted: true}, ""},
		{"the proof", api.Life{Subject: proofTopic, Outcomes: []api.LifeOutcome{done("proof", []string{"stream proof"}, "")}}, ""},
		{"a fault of the proof", api.Life{Subject: proofTopic, Outcomes: []api.LifeOutcome{{Function: "proof", What: "retry", Why: "again in 1s"}}}, "bad|demo/proof → proof: again in 1s"},
		{"an attack", api.Life{Subject: hostileName, Outcomes: []api.LifeOutcome{{Function: hostileName, What: "dead"}}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if n, ok := describe(tt.life); ok {
				got = n.Kind + "|" + n.Text
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// TestFeedIsCalm: what causes nothing is shown now and then, what causes something always, and an event has one line.
func TestFeedIsCalm(t *testing.T) {
	f := &feed{board: &board{}, last: map[string]time.Time{}}
	at := time.Now()
	life := func(id, subject string, after time.Duration, effects ...string) api.Life {
		return api.Life{ID: id, Subject: subject, Time: at.Add(after), Outcomes: []api.LifeOutcome{{Function: "f", What: "committed", Effects: effects}}}
	}
	f.see(life("1", "a", 0))
	f.see(life("2", "a", time.Second))                     // too soon
	f.see(life("3", "b", time.Second))                     // another subject
	f.see(life("4", "a", 2*time.Second, "device fan = 1")) // of note
	f.see(life("5", "a", 5*time.Second))                   // due again
	f.see(life("3", "b", time.Second, "stream s"))         // more of one that is there
	f.see(api.Life{})                                      // some were missed
	m, changed := f.board.snapshot()
	require.True(t, changed)
	var got []string
	for _, l := range m.Feed {
		got = append(got, l.ID+" "+l.Text)
	}
	require.Equal(t, []string{"1 a → f ok", "3 b → f: record s", "4 a → f: fan = 1", "5 a → f ok"}, got)
	require.Len(t, f.board.take(), 4)
	require.Empty(t, f.board.take())
}

func TestBoardIsBounded(t *testing.T) {
	b := &board{}
	for range 3 * maxFeed {
		b.tell(good, "x")
	}
	m, _ := b.snapshot()
	require.Len(t, m.Feed, maxFeed)
	require.Len(t, b.take(), maxFeed)
	f := &feed{board: b, last: map[string]time.Time{}}
	for i := range 3 * maxSubjects {
		f.due(time.Duration(i).String(), time.Now())
	}
	require.LessOrEqual(t, len(f.last), maxSubjects)
}

func TestPollerTellsWhatChanged(t *testing.T) {
	b := &board{}
	p := &poller{board: b, problems: map[string]bool{}, funcs: "/d/functions"}
	status := func(dups int64, problems ...string) *api.Status {
		s := &api.Status{PID: 1, Problems: problems}
		s.Events.Duplicates = dups
		return s
	}
	fns := func(rev string) []api.Function { return []api.Function{{Name: "a", Revision: rev, State: "active"}} }
	p.notice(status(0), fns("1111111111"))
	require.Empty(t, b.take(), "how it was is no news")
	steps := []struct {
		s    *api.Status
		f    []api.Function
		want string
	}{
		{status(0), fns("2222222222"), "a: new revision 22222222 is active (was 11111111)"},
		{status(0, "/d/functions/a/main.lua:3: no\nmore"), fns("2222222222"), "a/main.lua:3: no; the old revision stays"},
		{status(0, "/d/functions/a/main.lua:3: no\nmore"), fns("2222222222"), ""},
		{status(2), fns("2222222222"), "2 messages came again and did not run again: the gateway knew"},
		{&api.Status{PID: 2}, fns("2222222222"), ""},
		{status(1), nil, "a: removed"},
	}
	for _, s := range steps {
		p.notice(s.s, s.f)
		got := ""
		if lines := b.take(); len(lines) > 0 {
			got = lines[0].Text
		}
		require.Equal(t, s.want, got)
	}
}
