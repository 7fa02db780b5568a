package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

func TestRecordsAreBounded(t *testing.T) {
	l := &records{}
	put := func(id string, size int) {
		j := &job{inv: &functions.Invocation{Function: "f", Event: &event.Event{ID: id, Data: make([]byte, size)}}, dep: &Deployment{}}
		l.add(j, &functions.Outcome{}, verdict{what: "committed"})
	}
	for i := range 3 * recordsMost {
		put(fmt.Sprint(i), 10)
	}
	require.Len(t, l.list, recordsMost)
	_, in := l.find(fmt.Sprint(3*recordsMost-1), "")
	require.Equal(t, []string{"f"}, in)
	r, _ := l.find("7", "")
	require.Nil(t, r, "it is too long ago")

	put("large", recordBytes)
	r, _ = l.find("large", "")
	require.Nil(t, r, "it is too large")
	for i := range recordsMost {
		put(fmt.Sprint("b", i), recordBytes-1000)
		require.LessOrEqual(t, l.bytes, recordsBytes)
	}
	r, _ = l.find(fmt.Sprint("b", recordsMost-1), "f")
	require.NotNil(t, r)
	sum := 0
	for _, r := range l.list {
		if r != nil {
			sum += recordSize(r)
		}
	}
	require.Equal(t, sum, l.bytes)
}

func TestWhyThereIsNoRecord(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.fn("name: other\ntriggers: [{mqtt: in/+, has: [x]}]\n", count)
	r.fn("name: third\ntriggers: [{mqtt: in/b}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome { return ok() })
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	settled(t, r.message("in/b", "1", "", false))
	settled(t, r.message("unknown", "1", "", false))
	var ids []string
	r.wait("three lives", func() bool {
		past, _, _ := r.e.Lives(10, false)
		ids = nil
		for _, l := range past {
			ids = append(ids, l.ID)
		}
		return len(ids) == 3
	})
	ctx := context.Background()
	got, err := r.e.Record(ctx, ids[0], "")
	require.NoError(t, err)
	require.Equal(t, "counter", got.Inv.Function)
	require.Equal(t, []functions.ReadAnswer{{Read: functions.Read{Kind: functions.ReadState, Name: "n"}}}, got.Reads)
	for id, want := range map[string]string{ids[1]: "ran in several functions; say which: ", ids[2]: "no function has run on it", "x": "is not remembered (any more)"} {
		_, err := r.e.Record(ctx, id, "")
		require.ErrorIs(t, err, ErrNoRecord)
		require.ErrorContains(t, err, want)
	}
	_, err = r.e.Record(ctx, ids[0], "other")
	require.ErrorContains(t, err, `function other did not run on event`)
	_, err = r.e.Record(ctx, ids[1], "third")
	require.NoError(t, err)
}

func TestADeadLetterIsRunForItsRecord(t *testing.T) {
	r := newRig(t)
	r.fn(counter, func(_ *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		ask(functions.Read{Kind: functions.ReadState, Name: "n"})
		return failing(functions.FaultError)
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	dead, err := r.e.DeadLetters("", "", 0)
	require.NoError(t, err)
	r.e.records = records{}
	got, err := r.e.Record(context.Background(), dead[0].ID, "")
	require.NoError(t, err)
	require.Equal(t, "dead", got.Verdict.What)
	require.Equal(t, functions.FaultError, got.Verdict.Fault.Kind)
	require.Equal(t, "in/a", got.Inv.Key)
	require.Equal(t, 1, got.Inv.Attempt)
	require.Len(t, got.Reads, 1)
	again, err := r.e.DeadLetters("", "", 0)
	require.NoError(t, err)
	require.Equal(t, dead, again)
}
