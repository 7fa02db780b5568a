package cli

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

func doctorCommand() *command {
	return &command{
		name: "doctor", brief: "what is wrong with the gateway and its machine, and how workers are confined",
		text: `It looks at the gateway, if one runs, and at the machine: broker, uplinks, functions, disk, memory, clock. Each layer of the workers'
confinement is on, off, or unavailable on this machine, with the reason; without a gateway, a worker is started to see.
"warning" is what may be as it should: a link that is down, a layer that this kernel does not have.
The exit code is 0 only if nothing is wrong.`,
		examples: []string{"perigee doctor", "perigee doctor --json | jq '.layers[] | select(.state != \"on\")'"},
		run: func(c *call) error {
			r := c.examine()
			var err error
			if c.json() {
				err = c.out.json(r)
			} else {
				writeReport(c.out, r)
			}
			if err == nil && !r.OK {
				return &exitError{ExitFailed}
			}
			return err
		},
	}
}

// The states of a finding.
const (
	stateOK      = "ok"
	stateWarning = "warning"
	stateWrong   = "wrong"
)

// finding is what the doctor says of one thing.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, warning, wrong
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// report is all that the doctor found.
type report struct {
	OK       bool        `json:"ok"` // nothing is wrong
	Version  string      `json:"version"`
	OS       string      `json:"os"`
	Arch     string      `json:"arch"`
	Kernel   string      `json:"kernel"`
	CPUs     int         `json:"cpus"`
	Memory   int64       `json:"memory"`            // bytes
	Gateway  string      `json:"gateway,omitempty"` // the one that answers
	Findings []finding   `json:"findings"`
	Layers   []api.Layer `json:"layers"`
}

func (r *report) add(check, state, format string, args ...any) *finding {
	r.Findings = append(r.Findings, finding{Check: check, State: state, Text: safe(fmt.Sprintf(format, args...), 300)})
	return &r.Findings[len(r.Findings)-1]
}

func (f *finding) hint(text string) { f.Hint = text }

// examine looks at everything. What cannot be looked at is a finding, too.
func (c *call) examine() *report {
	m := lookAround()
	r := &report{Version: c.p.opts.Version, OS: runtime.GOOS, Arch: runtime.GOARCH, Kernel: m.kernel, CPUs: runtime.NumCPU(), Memory: m.memory, Layers: []api.Layer{}}
	conf, err := config.Load(c.String("config"), config.Overrides{DataDir: c.String("data-dir")})
	if err != nil {
		r.add("config", stateWrong, "%s", err)
		conf = nil
	} else if conf.File != "" {
		r.add("config", stateOK, "%s", conf.File)
	}
	s := c.running(r)
	if s != nil {
		r.ofGateway(s)
		r.ofFunctions(c)
	} else if conf != nil {
		r.ofBroker(c.ctx, conf)
	}
	r.ofMachine(m)
	r.ofDisk(s, conf)
	r.ofWorkers(c, s, conf)
	r.OK = !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.State == stateWrong })
	return r
}

// running asks the gateway how it is; nil if there is none.
func (c *call) running(r *report) *api.Status {
	gw, err := c.gateway()
	if err != nil {
		return nil // the configuration is wrong, which has been said
	}
	s, err := gw.Status(c.ctx)
	switch {
	case api.IsCode(err, api.CodeNoGateway):
		said, _, _ := strings.Cut(err.Error(), "\n")
		r.add("gateway", stateWarning, "%s", said).hint("start it with: perigee run")
	case err != nil:
		r.add("gateway", stateWrong, "%s", err)
	}
	if err != nil {
		return nil
	}
	return s
}

func (r *report) ofGateway(s *api.Status) {
	r.Gateway = s.Gateway
	if s.Ready {
		r.add("gateway", stateOK, "%s is ready, for %s", s.Gateway, span(s.Uptime))
	} else {
		r.add("gateway", stateWrong, "%s is not ready, after %s", s.Gateway, span(s.Uptime)).hint("see its log")
	}
	if s.Version != r.Version {
		r.add("version", stateWarning, "the gateway is version %s, this command %s", s.Version, r.Version).hint("restart the gateway after an update")
	}
	for _, p := range s.Problems {
		r.add("gateway", stateWrong, "%s", p)
	}
	switch b := s.Broker; {
	case b.Connected && b.Embedded:
		r.add("broker", stateOK, "embedded, %s", strings.Join(b.Listen, " "))
	case b.Connected:
		r.add("broker", stateOK, "%s is connected", b.URL)
	default:
		r.add("broker", stateWrong, "%s is not connected%s", strings.TrimSpace("the broker "+b.URL), because(b.LastError)).hint("see broker: in gateway.yaml")
	}
	for _, src := range s.Sources {
		if !src.Connected {
			r.add("source", stateWarning, "%s is not connected%s", src.Name, because(src.LastError))
		}
	}
	for _, u := range s.Uplinks {
		switch {
		case u.Paused:
			r.add("uplink", stateWarning, "%s is paused, %s waiting", u.Name, plural(u.Waiting, "record")).hint("perigee sync resume")
		case !u.Connected:
			r.add("uplink", stateWarning, "%s is not connected to %s, %s waiting%s", u.Name, u.URL, plural(u.Waiting, "record"), because(u.LastError))
		default:
			r.add("uplink", stateOK, "%s is connected to %s, %s waiting", u.Name, u.URL, plural(u.Waiting, "record"))
		}
	}
	for _, cause := range sortedCounts(s.Losses) {
		r.add("events", stateWarning, "%s lost by %s", plural(s.Losses[cause], "event"), cause)
	}
	if n := s.Events.Dead; n > 0 {
		r.add("events", stateWarning, "%s", plural(n, "dead letter")).hint("perigee dead list")
	}
}

// ofFunctions names the functions that do not run.
func (r *report) ofFunctions(c *call) {
	gw, err := c.gateway()
	if err != nil {
		return
	}
	list, err := gw.Functions(c.ctx)
	if err != nil {
		r.add("functions", stateWrong, "%s", err)
		return
	}
	idle := 0
	for _, f := range list {
		switch f.State {
		case "blocked":
			r.add("function", stateWrong, "%s is blocked%s", f.Name, because(f.Reason))
		case "paused":
			r.add("function", stateWarning, "%s is paused%s", f.Name, because(f.Reason)).hint("perigee functions resume " + f.Name)
		default:
			continue
		}
		idle++
	}
	if idle == 0 {
		r.add("functions", stateOK, "%d, none blocked or paused", len(list))
	}
}

// brokerTime is how long an external broker may take to answer.
const brokerTime = 3 * time.Second

// ofBroker looks whether the broker that the configuration names could be reached.
func (r *report) ofBroker(ctx context.Context, conf *config.Config) {
	if conf.Broker.Embedded() {
		return
	}
	u, err := url.Parse(conf.Broker.URL)
	if err != nil {
		r.add("broker", stateWrong, "%s", err)
		return
	}
	host := u.Host
	if u.Port() == "" {
		port := "1883"
		if u.Scheme != "tcp" && u.Scheme != "mqtt" {
			port = "8883"
		}
		host = net.JoinHostPort(u.Hostname(), port)
	}
	dialer := net.Dialer{Timeout: brokerTime}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		r.add("broker", stateWrong, "%s cannot be reached: %s", u.Redacted(), err)
		return
	}
	conn.Close()
	r.add("broker", stateOK, "%s can be reached", u.Redacted())
}

// ofWorkers reports the layers of the running gateway's workers, or of one that is started to look.
func (r *report) ofWorkers(c *call, s *api.Status, conf *config.Config) {
	switch {
	case s != nil:
		r.Layers = append(r.Layers, s.Workers.Layers...)
		if s.Workers.StartError != "" {
			r.add("workers", stateWrong, "they do not start: %s", s.Workers.StartError)
		}
	case c.p.opts.Layers != nil && conf != nil:
		layers, err := c.p.opts.Layers(c.ctx, conf)
		if err != nil {
			r.add("workers", stateWrong, "%s", err)
		}
		r.Layers = append(r.Layers, layers...)
	}
	on := 0
	for _, l := range r.Layers {
		switch l.State {
		case api.LayerOn:
			on++
		case api.LayerOff:
			r.add("confinement", stateWrong, "%s is off%s", l.Name, because(l.Why))
		default:
			r.add("confinement", stateWarning, "%s is %s%s", l.Name, l.State, because(l.Why))
		}
	}
	if len(r.Layers) > 0 && on == len(r.Layers) {
		r.add("confinement", stateOK, "all %d layers are on", on)
	}
}

func writeReport(out *printer, r *report) {
	out.line("perigee %s on %s/%s, kernel %s, %d CPUs, %s of memory", r.Version, r.OS, r.Arch, r.Kernel, r.CPUs, size(r.Memory))
	for _, f := range r.Findings {
		out.line("%s %-11s %s", mark(out, f.State), f.Check, f.Text)
		if f.Hint != "" && f.State != stateOK {
			out.line("%s %s", strings.Repeat(" ", 19), out.dim(f.Hint))
		}
	}
	if len(r.Layers) > 0 {
		out.line("")
		rows := [][]string{{"LAYER", "STATE", "WHY"}}
		for _, l := range r.Layers {
			state := l.State
			switch state {
			case api.LayerOn:
				state = out.good(state)
			case api.LayerOff:
				state = out.bad(state)
			default:
				state = out.warn(state)
			}
			rows = append(rows, []string{safe(l.Name, 40), state, safe(l.Why, 200)})
		}
		out.table(rows)
	}
}

// mark is the first column of a finding.
func mark(out *printer, state string) string {
	padded := fmt.Sprintf("%-7s", state)
	switch state {
	case stateOK:
		return out.good(padded)
	case stateWrong:
		return out.bad(padded)
	}
	return out.warn(padded)
}
