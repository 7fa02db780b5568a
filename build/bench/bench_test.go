package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuantile(t *testing.T) {
	require.Zero(t, quantile(nil, 0.5))
	d := make([]time.Duration, 100)
	for i := range d {
		d[i] = time.Duration(i)
	}
	require.EqualValues(t, 50, quantile(d, 0.50))
	require.EqualValues(t, 99, quantile(d, 0.99))
	require.EqualValues(t, 99, quantile(d, 1))
}

func TestTreeSeesThisProcessAndItsChild(t *testing.T) {
	p, err := spawn("", nil, "sleep", "60")
	require.NoError(t, err)
	defer p.stop()
	u := tree(os.Getpid())
	require.Contains(t, u.own, os.Getpid())
	require.Contains(t, u.own, p.pid())
	require.Positive(t, u.memory.RSS)
	require.Positive(t, u.memory.PSS)
	require.LessOrEqual(t, u.memory.PSS, u.memory.RSS)
}

func TestReport(t *testing.T) {
	start := time.Now()
	l := &load{sent: []sending{{}, {at: start, took: time.Millisecond, answers: 1}, {at: start, took: 3 * time.Millisecond, answers: 3}, {at: start}}}
	before, after := usage{own: map[int]time.Duration{1: 0}}, usage{own: map[int]time.Duration{1: 3 * time.Millisecond}}
	bare, gateway := &result{Name: "bare"}, &result{Name: "perigee"}
	bare.load(l, 1, before, after, memory{})
	after.own[1] *= 2
	gateway.load(l, 1, before, after, memory{})
	require.Equal(t, 3, gateway.Events)
	require.Equal(t, 1, gateway.Lost)
	require.Equal(t, 2, gateway.Duplicates)
	rep := newReport(options{}, []*result{bare, gateway})
	require.Equal(t, "bare", rep.Reference)
	require.InDelta(t, 2, rep.CPURatio["perigee"], 0.001)
	var out strings.Builder
	rep.print(&out)
	require.Contains(t, out.String(), "perigee: 2.00 times the CPU of bare")
	require.ErrorContains(t, rep.complete(), "perigee: of 3 events 1 had no answer, and 2 answers came again")
	gateway.Lost, gateway.Duplicates, bare.Lost, bare.Duplicates = 0, 0, 0, 0
	require.NoError(t, rep.complete())
}

func TestTail(t *testing.T) {
	var b tail
	_, _ = b.Write([]byte(strings.Repeat("x", 10000)))
	_, _ = b.Write([]byte("end"))
	require.Len(t, b.String(), 8192)
	require.True(t, strings.HasSuffix(b.String(), "xend"))
}
