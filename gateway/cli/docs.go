package cli

import (
	"fmt"
	"io"
)

// WriteDocs writes the reference of all commands, as docs/cli.md has it.
func (p *Program) WriteDocs(w io.Writer) {
	fmt.Fprint(w, `# The command line

`+"`perigee`"+` is one program: the gateway (`+"`perigee run`"+`) and the commands that talk to it through its control socket. Which
gateway that is follows from the configuration, as it does for the gateway itself: `+"`--config FILE`"+`, else `+"`./gateway.yaml`"+`, else
`+"`/etc/perigee/gateway.yaml`"+`, else the defaults; `+"`--data-dir`"+` and `+"`--socket`"+` go before all of them. Without any of these, a person's
own gateway comes first and the system's in /var/lib/perigee second. Whoever may open the socket may do everything; that is the gateway's
owner and group.

Flags may stand anywhere on the line; what follows `+"`--`"+` is arguments. `+"`--json`"+` prints the control API's JSON: one indented value, or one
value a line for lists that can be followed (events, logs) and for commands that take several names. Times in JSON are nanoseconds where
the field ends in _ns. Errors are one sentence on standard error, mostly with a hint on the next line. Text is coloured on a
terminal, unless NO_COLOR is set.

## Exit codes

| code | meaning |
|---|---|
`)
	for _, r := range exitTable() {
		fmt.Fprintf(w, "| %s | %s |\n", r[0], r[1])
	}
	fmt.Fprint(w, `
What `+"`-f`"+` follows until it is interrupted ends with 0.

## Completion

`+"```sh"+`
source <(perigee completion bash)     # or zsh, or fish
`+"```"+`

## Commands
`)
	p.writeCommand(w, []*command{p.root})
}

func (p *Program) writeCommand(w io.Writer, path []*command) {
	c := path[len(path)-1]
	if len(path) > 1 && c.run != nil {
		fmt.Fprintf(w, "\n### %s\n\n```text\n", pathName(path))
		writeHelpBody(w, path)
		fmt.Fprint(w, "```\n")
	}
	for _, s := range c.sub {
		if !s.hidden {
			p.writeCommand(w, append(path[:len(path):len(path)], s))
		}
	}
}
