package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// writeHelp writes the help of the command at the end of path.
func writeHelp(w io.Writer, path []*command) {
	writeHelpBody(w, path)
	section(w, "Exit codes", exitTable())
	if len(path) == 1 {
		fmt.Fprintf(w, "\nFlags may stand anywhere. More about a command: perigee COMMAND --help\n")
	}
}

// writeHelpBody writes all but what is the same everywhere.
func writeHelpBody(w io.Writer, path []*command) {
	c := path[len(path)-1]
	fmt.Fprintf(w, "%s - %s\n\nUsage:\n", pathName(path), c.brief)
	switch {
	case c.run != nil:
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace(pathName(path)+" [flags] "+c.usage))
		if len(c.sub) > 0 {
			fmt.Fprintf(w, "  %s COMMAND [flags]\n", pathName(path))
		}
	default:
		fmt.Fprintf(w, "  %s COMMAND [flags]\n", pathName(path))
	}
	if c.alias != "" {
		fmt.Fprintf(w, "  %s is short for it\n", c.alias)
	}
	if c.text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.text))
	}
	var rows [][2]string
	for _, s := range c.sub {
		if !s.hidden {
			rows = append(rows, [2]string{strings.TrimSpace(s.name + " " + s.usage), s.brief})
		}
	}
	section(w, "Commands", rows)
	rows = nil
	for _, f := range c.allFlags() {
		rows = append(rows, flagRow(f))
	}
	section(w, "Flags", rows)
	if len(c.examples) > 0 {
		fmt.Fprintf(w, "\nExamples:\n")
		for _, e := range c.examples {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
}

func section(w io.Writer, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, r := range rows {
		width = max(width, visible(r[0]))
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, r := range rows {
		fmt.Fprintf(w, "  %s  %s\n", pad(r[0], width), r[1])
	}
}

// flagRow splits a flag for help: "-f, --follow", "wait for more".
func flagRow(f cli.Flag) [2]string {
	var names []string
	for _, n := range f.Names() {
		names = append(names, flagName(n))
	}
	if len(names) == 2 && len(names[1]) == 2 {
		names[0], names[1] = names[1], names[0]
	}
	left, usage := strings.Join(names, ", "), ""
	if d, ok := f.(cli.DocGenerationFlag); ok {
		usage = d.GetUsage()
	}
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if word, after, ok := strings.Cut(rest, "`"); ok {
			left += " " + word
			usage = before + word + after
		}
	}
	return [2]string{left, usage}
}
