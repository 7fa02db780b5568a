package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// Status asks for the gateway at a glance.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[*Status](ctx, c, http.MethodGet, path("status"), nil, nil)
}

// Reload makes the gateway read its configuration and its functions' directory again.
func (c *Client) Reload(ctx context.Context) (*ReloadResult, error) {
	return call[*ReloadResult](ctx, c, http.MethodPost, path("reload"), nil, nil)
}

// Config asks for the configuration in force.
func (c *Client) Config(ctx context.Context) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, http.MethodGet, path("config"), nil, nil)
}

// Functions lists what is deployed.
func (c *Client) Functions(ctx context.Context) ([]Function, error) {
	return call[[]Function](ctx, c, http.MethodGet, path("functions"), nil, nil)
}

// Function asks for one function, with its files.
func (c *Client) Function(ctx context.Context, name string) (*Function, error) {
	return call[*Function](ctx, c, http.MethodGet, path("functions", name), nil, nil)
}

// Apply deploys a bundle, or with r.Dry only checks it.
func (c *Client) Apply(ctx context.Context, r *ApplyRequest) (*ApplyResult, error) {
	return call[*ApplyResult](ctx, c, http.MethodPost, path("functions"), nil, r)
}

// Remove takes a function away, with purge its state too.
func (c *Client) Remove(ctx context.Context, name string, purge bool) error {
	return c.act(ctx, http.MethodDelete, path("functions", name), params("purge", purge), nil)
}

// Pause stops a function from running; its events collect.
func (c *Client) Pause(ctx context.Context, name, reason string) error {
	return c.act(ctx, http.MethodPost, path("functions", name, "pause"), nil, pauseBody{Reason: reason})
}

// Resume lets a paused function run again.
func (c *Client) Resume(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodPost, path("functions", name, "resume"), nil, nil)
}

// Invoke runs a function once on an event made by hand.
func (c *Client) Invoke(ctx context.Context, name string, r *InvokeRequest) (*Invoked, error) {
	return call[*Invoked](ctx, c, http.MethodPost, path("functions", name, "invoke"), nil, r)
}

// Logs lists log lines, oldest first; with q.Follow it goes on until ctx ends or the gateway stops.
func (c *Client) Logs(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	return each(ctx, c, path("logs"), params("function", q.Function, "follow", q.Follow, "limit", q.Limit), emit)
}

// Events lists events with what they caused, oldest first; with q.Follow it goes on until ctx ends or the gateway stops.
func (c *Client) Events(ctx context.Context, q EventQuery, emit func(Life) error) error {
	return each(ctx, c, path("events"), params("topic", q.Topic, "function", q.Function, "follow", q.Follow, "limit", q.Limit), emit)
}

// Event asks for one event's life.
func (c *Client) Event(ctx context.Context, id string) (*Life, error) {
	return call[*Life](ctx, c, http.MethodGet, path("events", id), nil, nil)
}

// EventCase asks for an event as a test case of a function, which may be empty if the event ran in one only.
func (c *Client) EventCase(ctx context.Context, id, function string) (*EventCase, error) {
	return call[*EventCase](ctx, c, http.MethodGet, path("events", id, "case"), params("function", function), nil)
}

// Record passes on a recording until it has what q asks for, ctx ends or the gateway stops.
func (c *Client) Record(ctx context.Context, q RecordQuery, emit func(json.RawMessage) error) error {
	query := params("function", q.Function, "key", q.Key, "invocations", q.Invocations)
	if q.Bytes != 0 {
		query.Set("bytes", strconv.FormatInt(q.Bytes, 10))
	}
	if q.For != 0 {
		query.Set("for", q.For.String())
	}
	return each(ctx, c, path("recording"), query, func(line json.RawMessage) error { return emit(line) })
}

// DeadLetters lists dead letters without their data.
func (c *Client) DeadLetters(ctx context.Context, q DeadQuery) ([]DeadLetter, error) {
	return call[[]DeadLetter](ctx, c, http.MethodGet, path("dead"), params("function", q.Function, "revision", q.Revision, "limit", q.Limit), nil)
}

// DeadLetter asks for one dead letter, with its data.
func (c *Client) DeadLetter(ctx context.Context, id string) (*DeadLetter, error) {
	return call[*DeadLetter](ctx, c, http.MethodGet, path("dead", id), nil, nil)
}

// Replay runs a dead letter again, with other data if data is not nil.
func (c *Client) Replay(ctx context.Context, id string, data []byte) error {
	return c.act(ctx, http.MethodPost, path("dead", id, "replay"), nil, replayBody{Data: data})
}

// TryReplay asks what a replay of a dead letter would do; nothing is done.
func (c *Client) TryReplay(ctx context.Context, id string, data []byte) (*Invoked, error) {
	return call[*Invoked](ctx, c, http.MethodPost, path("dead", id, "try"), nil, replayBody{Data: data})
}

// Drop removes a dead letter for good.
func (c *Client) Drop(ctx context.Context, id string) error {
	return c.act(ctx, http.MethodDelete, path("dead", id), nil, nil)
}

// State lists the values that ref names.
func (c *Client) State(ctx context.Context, ref StateRef) ([]StateEntry, error) {
	return call[[]StateEntry](ctx, c, http.MethodGet, path("state", ref.Function), ref.params(), nil)
}

// SetState sets one value.
func (c *Client) SetState(ctx context.Context, ref StateRef, value json.RawMessage) error {
	if !json.Valid(value) {
		return Errorf(CodeBadRequest, "the value is not JSON: %.60s", value).WithHint(`a text needs quotes: '"warm"'`)
	}
	return c.act(ctx, http.MethodPut, path("state", ref.Function), ref.params(), value)
}

// DeleteState removes the values that ref names and says how many there were.
func (c *Client) DeleteState(ctx context.Context, ref StateRef) (int, error) {
	n, err := call[countBody](ctx, c, http.MethodDelete, path("state", ref.Function), ref.params(), nil)
	return n.Count, err
}

// Devices lists the configured devices.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	return call[[]Device](ctx, c, http.MethodGet, path("devices"), nil, nil)
}

// Device reads one device.
func (c *Client) Device(ctx context.Context, name string) (*Device, error) {
	return call[*Device](ctx, c, http.MethodGet, path("devices", name), nil, nil)
}

// WriteDevice writes a value (nil, bool, a number or a string) to a device.
func (c *Client) WriteDevice(ctx context.Context, name string, value any) error {
	return c.act(ctx, http.MethodPut, path("devices", name), nil, valueBody{Value: value})
}

// Uplinks lists the connections to the cloud.
func (c *Client) Uplinks(ctx context.Context) ([]UplinkStatus, error) {
	return call[[]UplinkStatus](ctx, c, http.MethodGet, path("uplinks"), nil, nil)
}

// Streams lists the streams.
func (c *Client) Streams(ctx context.Context) ([]Stream, error) {
	return call[[]Stream](ctx, c, http.MethodGet, path("streams"), nil, nil)
}

// act is call for what answers nothing.
func (c *Client) act(ctx context.Context, method, path string, query url.Values, body any) error {
	_, err := call[done](ctx, c, method, path, query, body)
	return err
}

func (ref StateRef) params() url.Values {
	return params("name", ref.Name, "key", ref.Key, "shared", ref.Shared)
}
