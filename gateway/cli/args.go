package cli

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// command is one command, or a group of them.
type command struct {
	name     string
	alias    string
	usage    string // its arguments: "FUNCTION NAME"
	brief    string // one line
	text     string // more, if there is more to say
	examples []string
	flags    []cli.Flag
	local    bool // asks no gateway: --socket and --data-dir make no sense
	plain    bool // has no --json
	hidden   bool
	min, max int // arguments; max -1: any number
	sub      []*command
	run      func(c *call) error
}

// gatewayFlags say which gateway.
func gatewayFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "the gateway's configuration `FILE` (default: ./gateway.yaml, else /etc/perigee/gateway.yaml)"},
		&cli.StringFlag{Name: "data-dir", Usage: "the gateway's data `DIR`"},
		&cli.StringFlag{Name: "socket", Usage: "the gateway's control `SOCKET` (default: perigee.sock in its data directory)"},
	}
}

// allFlags are the command's own and those that all have.
func (c *command) allFlags() []cli.Flag {
	flags := slices.Clone(c.flags)
	if c.run == nil {
		return flags
	}
	if !c.plain {
		flags = append(flags, &cli.BoolFlag{Name: "json", Usage: "JSON instead of text"})
	}
	if !c.local {
		flags = append(flags, gatewayFlags()...)
	}
	return flags
}

func (c *command) child(name string) *command {
	for _, s := range c.sub {
		if s.name == name || (s.alias != "" && s.alias == name) {
			return s
		}
	}
	return nil
}

func (c *command) childNames() []string {
	var names []string
	for _, s := range c.sub {
		if !s.hidden {
			names = append(names, s.name)
		}
	}
	return names
}

// line is a command line, sorted: urfave/cli stops parsing flags at the first argument, and people do not.
type line struct {
	path     []*command // from the root
	flags    []string
	args     []string
	help     bool
	complete bool
}

var negativeNumber = regexp.MustCompile(`^-[0-9.]`)

// arrange finds the command and sorts flags from arguments. Flags are looked up when the command is known, so that those that all
// commands have may stand before its name.
func (c *command) arrange(args []string) (*line, error) {
	if len(args) > 0 && args[0] == "__complete" {
		return &line{path: []*command{c}, args: args[1:], complete: true}, nil
	}
	l := &line{path: []*command{c}}
	words, flags, err := c.split(args)
	if err != nil {
		return nil, err
	}
	here := c
	if len(words) > 0 && words[0] == "help" {
		l.help, words = true, words[1:]
	}
	for len(here.sub) > 0 && len(words) > 0 {
		next := here.child(words[0])
		if next == nil {
			if here.run != nil && here.max != 0 {
				break
			}
			return nil, here.unknown(l.path, words[0])
		}
		here, words = next, words[1:]
		l.path = append(l.path, here)
	}
	for _, f := range flags {
		if f.name == "h" || f.name == "help" {
			l.help = true
		}
	}
	if l.help {
		return l, nil
	}
	if here.run == nil {
		if len(flags) == 1 && here == c && flags[0].name == "version" {
			l.path = append(l.path, c.child("version"))
			return l, nil
		}
		if len(args) == 0 {
			l.help = true
			return l, nil
		}
		return nil, usagef("%s needs one of: %s", pathName(l.path), strings.Join(here.childNames(), ", ")).withHint("see: %s --help", pathName(l.path))
	}
	l.args = words
	for _, f := range flags {
		if err := here.checkFlag(l.path, f); err != nil {
			return nil, err
		}
		if f.hasValue {
			l.flags = append(l.flags, "--"+f.name+"="+f.value)
		} else {
			l.flags = append(l.flags, "--"+f.name)
		}
	}
	return l, nil
}

// given is one flag of a command line.
type given struct {
	name     string
	value    string
	hasValue bool
}

// split takes flags with their values out of the line. Which flags take values is the same in all commands; a test holds it.
func (c *command) split(args []string) (words []string, flags []given, err error) {
	takes := map[string]bool{}
	c.walk(func(cmd *command) {
		for _, f := range cmd.allFlags() {
			for _, n := range f.Names() {
				takes[n] = takes[n] || !isBool(f)
			}
		}
	})
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return append(words, args[i+1:]...), flags, nil
		case a == "-" || !strings.HasPrefix(a, "-") || negativeNumber.MatchString(a):
			words = append(words, a)
			continue
		}
		f := given{name: strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-")}
		f.name, f.value, f.hasValue = strings.Cut(f.name, "=")
		if takes[f.name] && !f.hasValue {
			if i+1 >= len(args) {
				return nil, nil, usagef("%s needs a value", flagName(f.name))
			}
			i++
			f.value, f.hasValue = args[i], true
		}
		flags = append(flags, f)
	}
	return words, flags, nil
}

func (c *command) walk(fn func(*command)) {
	fn(c)
	for _, s := range c.sub {
		s.walk(fn)
	}
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

func flagName(n string) string {
	if len(n) == 1 {
		return "-" + n
	}
	return "--" + n
}

// checkFlag refuses what the command does not have.
func (c *command) checkFlag(path []*command, f given) error {
	var names []string
	for _, have := range c.allFlags() {
		names = append(names, have.Names()...)
		if slices.Contains(have.Names(), f.name) {
			return checkValue(have, f)
		}
	}
	err := usagef("%s has no flag %s", pathName(path), flagName(f.name))
	if near := yamlfile.Nearest(f.name, names); near != "" {
		return err.withHint("did you mean %s?", flagName(near))
	}
	return err.withHint("see: %s --help", pathName(path))
}

// checkValue says in our words what the parser would say in its own.
func checkValue(have cli.Flag, f given) error {
	if _, ok := have.(*cli.IntFlag); ok {
		if n, err := strconv.Atoi(f.value); err != nil || n < 0 {
			return usagef("%s is %q, it should be a whole number", flagName(f.name), f.value)
		}
	}
	if isBool(have) && f.hasValue {
		if _, err := strconv.ParseBool(f.value); err != nil {
			return usagef("%s is %q, it takes no value", flagName(f.name), f.value)
		}
	}
	return nil
}

func (c *command) unknown(path []*command, word string) error {
	err := usagef("there is no command %q", strings.TrimPrefix(pathName(path)+" "+word, "perigee "))
	if near := yamlfile.Nearest(word, c.childNames()); near != "" {
		return err.withHint("did you mean %q?", pathName(path)+" "+near)
	}
	for _, s := range c.sub {
		if s.child(word) != nil && !s.hidden {
			return err.withHint("did you mean %q?", pathName(path)+" "+s.name+" "+word)
		}
	}
	return err.withHint("see: %s --help", pathName(path))
}

// checkArgs counts the arguments.
func (c *command) checkArgs(path []*command, args []string) error {
	switch {
	case len(args) < c.min:
		return usagef("%s needs %s", pathName(path), c.usage).withHint("see: %s --help", pathName(path))
	case c.max >= 0 && len(args) > c.max && c.max == 0:
		return usagef("%s takes no arguments, and %q is one", pathName(path), args[0]).withHint("see: %s --help", pathName(path))
	case c.max >= 0 && len(args) > c.max:
		return usagef("%s takes %s, and %q is too much", pathName(path), c.usage, args[c.max]).withHint("see: %s --help", pathName(path))
	}
	return nil
}

func pathName(path []*command) string {
	names := make([]string, len(path))
	for i, c := range path {
		names[i] = c.name
	}
	return strings.Join(names, " ")
}

// complete writes what may come after words, one a line; the shell picks what fits.
func (c *command) complete(w io.Writer, words []string) {
	here := c
	for _, word := range words[:max(len(words)-1, 0)] {
		if next := here.child(word); next != nil {
			here = next
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[len(words)-1], "-") {
		for _, f := range here.allFlags() {
			fmt.Fprintln(w, flagName(f.Names()[0]))
		}
		return
	}
	for _, n := range here.childNames() {
		fmt.Fprintln(w, n)
	}
}
