package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/gateway/api"
)

func allowCommand() *command {
	return &command{
		name: "allow", usage: "NAME", brief: "permit what a function was denied", min: 1, max: 1,
		text: `It shows what the function was denied, by its dead letters and its log, and how function.yaml would change, and asks. A function of
the directory of functions is changed there; of one that was applied, a new revision is made. Comments and order stay.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show it, change nothing"},
		},
		examples: []string{"perigee functions allow overheat", "perigee functions allow overheat --dry-run", "perigee functions allow overheat --yes"},
		run:      allow,
	}
}

// allowance is what allow shows and does.
type allowance struct {
	Function string   `json:"function"`
	Denied   []string `json:"denied"`
	Text     string   `json:"function_yaml,omitempty"` // as it would be
	Revision string   `json:"revision,omitempty"`      // that has it now

	list []functions.Denied
	was  string
}

// shownDenials bounds how many dead letters and lines of the log are looked at.
const shownDenials = 1000

func allow(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	f, err := gw.Function(c.ctx, c.args[0])
	if err != nil {
		return err
	}
	if f.Origin == "pushed" {
		return usagef("%s was pushed to this gateway", f.Name).withHint("change it where it is pushed from")
	}
	a, err := denials(c, gw, f)
	if err != nil {
		return err
	}
	if len(a.list) == 0 {
		if c.json() {
			return c.out.jsonLine(a)
		}
		c.out.line("%s was denied nothing that it still lacks", f.Name)
		return nil
	}
	text, err := functions.Allow("function.yaml", []byte(a.was), f.Name, a.list)
	if errors.Is(err, functions.ErrByHand) {
		return api.Errorf(api.CodeConflict, "%v", err).WithHint("add by hand: %s", strings.Join(a.Denied, "; "))
	}
	if err != nil {
		return err
	}
	a.Text = string(text)
	if !c.json() {
		c.out.line("%s was denied:", f.Name)
		for _, d := range a.Denied {
			c.out.line("  %s", safe(d, 0))
		}
		c.out.line("function.yaml would change:")
		writeDiff(c.out, a.was, a.Text)
	}
	switch {
	case c.Bool("dry-run"):
		if c.json() {
			return c.out.jsonLine(a)
		}
		return nil
	case !c.Bool("yes"):
		if err := c.confirm("permit this?"); err != nil {
			return err
		}
	}
	return a.do(c, gw, f)
}

// denials gathers what a function was denied and still lacks, in the order of first sight.
func denials(c *call, gw *api.Client, f *api.Function) (*allowance, error) {
	a := &allowance{Function: f.Name, Denied: []string{}, was: f.Files["function.yaml"]}
	spec, err := functions.ParseSpec("function.yaml", []byte(a.was), f.Name)
	if err != nil {
		return nil, err
	}
	see := func(fault *functions.Fault) {
		if fault == nil || fault.Kind != functions.FaultDenied {
			return
		}
		d, ok := functions.ParseHint(fault.Hint)
		if ok && d.Missing(spec.Permissions) && !slices.Contains(a.list, d) {
			a.list, a.Denied = append(a.list, d), append(a.Denied, d.String())
		}
	}
	letters, err := gw.DeadLetters(c.ctx, api.DeadQuery{Function: f.Name, Limit: shownDenials})
	if err != nil {
		return nil, err
	}
	for _, l := range slices.Backward(letters) { // they come newest first
		see(l.Fault)
	}
	err = gw.Logs(c.ctx, api.LogQuery{Function: f.Name, Limit: shownDenials}, func(l api.LogLine) error { see(l.Fault); return nil })
	see(f.LastFault)
	return a, err
}

// do changes function.yaml where the function comes from.
func (a *allowance) do(c *call, gw *api.Client, f *api.Function) error {
	if f.Origin == "dir" {
		if err := changeFolder(c, gw, f, a); err != nil {
			return err
		}
	} else {
		req := &api.ApplyRequest{Name: f.Name, Files: map[string][]byte{}}
		for name, text := range f.Files {
			req.Files[name] = []byte(text)
		}
		req.Files["function.yaml"] = []byte(a.Text)
		if _, err := gw.Apply(c.ctx, req); err != nil {
			return err
		}
	}
	now, err := gw.Function(c.ctx, f.Name)
	if err != nil {
		return err
	}
	a.Revision = short(now.Revision)
	if c.json() {
		return c.out.jsonLine(a)
	}
	c.out.line("%s: %s → %s, %s%s", f.Name, short(f.Revision), a.Revision, c.out.state(now.State), because(now.Reason))
	if f.Dead > 0 {
		c.out.line("run what failed again with: perigee dead replay --all --function %s", f.Name)
	}
	return nil
}

// changeFolder writes function.yaml in the gateway's directory of functions, and has it read.
func changeFolder(c *call, gw *api.Client, f *api.Function, a *allowance) error {
	raw, err := gw.Config(c.ctx)
	if err != nil {
		return err
	}
	var cfg struct {
		Functions struct{ Dir string }
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return fmt.Errorf("the gateway's configuration: %w", err)
	}
	file, err := fileOf(cfg.Functions.Dir, f.Name)
	if err != nil {
		return err
	}
	on, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if string(on) != a.was {
		return api.Errorf(api.CodeConflict, "%s is not what the gateway runs", file).WithHint("have it read first: perigee reload")
	}
	if err := rewrite(file, []byte(a.Text)); err != nil {
		return err
	}
	r, err := gw.Reload(c.ctx)
	if err != nil {
		return fmt.Errorf("%s is changed, and the gateway did not read it: %w", file, err)
	}
	for _, p := range r.Problems {
		c.out.line("%s %s", c.out.warn("problem:"), paragraph(p))
	}
	return nil
}

// fileOf finds the function.yaml of a function; its folder may have another name.
func fileOf(dir, name string) (string, error) {
	found, err := bundle.LoadAll(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, f := range found {
		if f.Bundle != nil && f.Bundle.Spec.Name == name {
			return filepath.Join(dir, f.Folder, "function.yaml"), nil
		}
	}
	return "", api.Errorf(api.CodeNotFound, "%s is not in %s on this machine", name, dir)
}

// rewrite puts text in a file's place at once: a power cut leaves the old file or the new one. Mode and owner stay.
func rewrite(file string, text []byte) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".function-*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // once it is renamed there is nothing to remove
	_, err = tmp.Write(text)
	if s, ok := info.Sys().(*syscall.Stat_t); ok && err == nil && int(s.Uid) != os.Geteuid() {
		err = tmp.Chown(int(s.Uid), int(s.Gid))
	}
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Rename(tmp.Name(), file)
}

// confirm asks a person. Anything but yes, and the end of the input, is an error.
func (c *call) confirm(question string) error {
	fmt.Fprintf(c.p.opts.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.p.opts.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil {
			return usagef("nobody answered").withHint("to change it without a question: --yes; to look only: --dry-run")
		}
	}
	return errors.New("nothing was changed")
}

// writeDiff shows the lines that two short texts do not share, with the one before and the one behind.
func writeDiff(out *printer, was, now string) {
	a, b := strings.Split(strings.TrimSuffix(was, "\n"), "\n"), strings.Split(strings.TrimSuffix(now, "\n"), "\n")
	type line struct {
		mark string
		text string
	}
	var all []line
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			all = append(all, line{" ", a[0]})
			a, b = a[1:], b[1:]
		case len(a) > 0 && !slices.Contains(b, a[0]):
			all = append(all, line{"-", a[0]})
			a = a[1:]
		case len(b) > 0:
			all = append(all, line{"+", b[0]})
			b = b[1:]
		default:
			all = append(all, line{"-", a[0]})
			a = a[1:]
		}
	}
	for i, l := range all {
		near := func(n int) bool { return n >= 0 && n < len(all) && all[n].mark != " " }
		text := "  " + strings.TrimRight(l.mark+" "+safe(l.text, 0), " ")
		switch {
		case l.mark == "+":
			out.line("%s", out.good(text))
		case l.mark == "-":
			out.line("%s", out.bad(text))
		case near(i-1) || near(i+1):
			out.line("%s", text)
		}
	}
}
