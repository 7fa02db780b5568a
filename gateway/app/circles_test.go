package app

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/api"
)

func TestCircles(t *testing.T) {
	devices := drivers.Set{"heater": {Name: "heater", Feed: &drivers.Feed{Topic: "meter/1/json", Write: "meter/1/set"}}, "fan": {Name: "fan"}}
	const b = "{name: b, triggers: [{mqtt: alerts/+}], permissions: {publish: [b/out]}}"
	for name, test := range map[string]struct {
		a    string
		more []string
		want string
	}{
		"none":           {"triggers: [{mqtt: in/#}]\npermissions: {publish: [alerts/x]}", []string{b}, ""},
		"two":            {"triggers: [{mqtt: 'b/{what}'}]\npermissions: {publish: [other, alerts/#]}", []string{b}, "a → alerts/+ → b → b/out → a"},
		"alone":          {"triggers: [{mqtt: in/#}]\npermissions: {publish: [in/x]}", []string{b}, "a → in/x → a"},
		"everything":     {"triggers: [{mqtt: '#'}]\npermissions: {publish: [in/x]}", nil, "a → in/x → a"},
		"excluded":       {"triggers: [{mqtt: {topic: '#', exclude: [in/#]}}]\npermissions: {publish: [in/x]}", nil, ""},
		"result":         {"triggers: [{mqtt: b/out}]", []string{"{name: b, triggers: [{function: a}], permissions: {publish: [b/out]}}"}, "a → its result → b → b/out → a"},
		"own state":      {"triggers: [{state: a/n}]", nil, "a → its state n → a"},
		"state":          {"triggers: [{function: b}]", []string{"{name: b, triggers: [{state: a/n}]}"}, "a → its state n → b → its result → a"},
		"device written": {"triggers: [{mqtt: meter/1/set}]\npermissions: {devices: {write: [heater, fan]}}", nil, "a → meter/1/set → a"},
		"device feeds":   {"triggers: [{device: heater}, {device: fan}]\npermissions: {publish: [meter/#]}", nil, "a → meter/1/json → a"},
		"the shortest": {"triggers: [{function: c}, {function: b}]", []string{"{name: b, triggers: [{function: a}]}", "{name: c, triggers: [{function: b}]}"},
			"a → its result → b → its result → a"},
		"another's circle": {"triggers: [{every: 1m}]\npermissions: {publish: [x]}",
			[]string{"{name: b, triggers: [{function: c}, {mqtt: x}]}", "{name: c, triggers: [{function: b}]}"}, ""},
	} {
		spec, err := functions.ParseSpec("f", []byte("name: a\n"+test.a), "a")
		require.NoError(t, err, name)
		others := map[string]*functions.Spec{}
		for _, text := range test.more {
			o, err := functions.ParseSpec("f", []byte(text), "")
			require.NoError(t, err, name)
			others[o.Name] = o
		}
		require.Equal(t, test.want, circle(spec, others, devices), name)
		require.NotContains(t, others, "a")
	}
}

func TestApplyWarnsOfACircle(t *testing.T) {
	a := newSite(t).open()
	apply := func(name, yaml string) *api.ApplyResult {
		r, err := a.Apply(context.Background(), &api.ApplyRequest{Name: name, Files: map[string][]byte{"function.yaml": []byte(yaml), "main.lua": []byte(echo)}})
		require.NoError(t, err)
		return r
	}
	apply("b", "triggers: [{mqtt: in/#}]\n")
	require.Empty(t, apply("a", "triggers: [{mqtt: in/#}, {function: b}]\npermissions: {publish: [alerts/x]}\n").Warnings)
	require.Equal(t, []string{"it may trigger itself in a circle: b → its result → a → alerts/x → b; a circle ends after 16 functions, and the event of the next is lost"},
		apply("b", "triggers: [{mqtt: alerts/+}]\n").Warnings)
}
