package engine

import (
	"errors"
	"slices"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
)

// Secrets are what only functions may know; gateway/secrets has them.
type Secrets interface {
	Get(name string) (string, error)
	Mask(text string) string // takes them out of a text for people
	Longest() int            // bytes of the longest that Mask finds, 0 if there is none
}

// noSecrets is a gateway without any.
type noSecrets struct{}

func (noSecrets) Get(string) (string, error) { return "", errors.New("this gateway has no secrets") }
func (noSecrets) Mask(text string) string    { return text }
func (noSecrets) Longest() int               { return 0 }

// secretsOf are the values that go with an invocation. One that is not there is left out: the function hears of it when it asks.
func (e *Engine) secretsOf(p *functions.Permissions) (list []functions.Secret) {
	for _, name := range p.Secrets {
		if v, err := e.opt.Secrets.Get(name); err == nil {
			list = append(list, functions.Secret{Name: name, Value: v})
		}
	}
	return list
}

// hide takes secrets out of what an outcome says to people: its log lines and its fault.
func (e *Engine) hide(o *functions.Outcome) {
	if e.opt.Secrets.Longest() == 0 {
		return
	}
	for i := range o.Logs {
		o.Logs[i].Text = e.opt.Secrets.Mask(o.Logs[i].Text)
	}
	o.Fault = e.hideFault(o.Fault)
	if o.Retry != nil {
		o.Retry = &functions.RetryAsk{Why: e.opt.Secrets.Mask(o.Retry.Why), After: o.Retry.After}
	}
}

func (e *Engine) hideFault(f *functions.Fault) *functions.Fault {
	if f == nil || e.opt.Secrets.Longest() == 0 {
		return f
	}
	mask := e.opt.Secrets.Mask
	hidden := &functions.Fault{Kind: f.Kind, Message: mask(f.Message), Hint: mask(f.Hint), Traceback: slices.Clone(f.Traceback)}
	for i, line := range hidden.Traceback {
		hidden.Traceback[i] = mask(line)
	}
	return hidden
}

// describe says what an effect does, without secrets: those go before the text is cut, since a part of one is no secret to look for.
func describe(s Secrets, x *functions.Effect) string {
	if s.Longest() > 0 {
		c := *x
		c.Name = s.Mask(c.Name)
		if c.Kind != functions.CallHTTP { // its value is not shown
			c.Value = []byte(s.Mask(string(c.Value)))
		}
		x = &c
	}
	return rules.Describe(x)
}

// glimpse is the beginning of a payload, without secrets, and a little longer than what people see of it.
func glimpse(s Secrets, data []byte) string {
	text := string(data[:min(len(data), previewBytes+1+s.Longest())])
	if s.Longest() > 0 {
		text = s.Mask(text)
	}
	return text[:min(len(text), previewBytes+1)]
}
