// Package cli is the perigee command: a thin client of the control API, and the door to what runs for long (the gateway, its
// workers, the demo), which main passes in. So nothing here needs the store or Lua, and the worker starts fast.
//
// Each command is a value of type command: its words, flags, examples and what it does. Parsing accepts flags anywhere, help is
// written from the same values, and errors are a sentence with a hint. One table says what the exit codes mean.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

// The exit codes of every command.
const (
	ExitOK        = 0
	ExitFailed    = 1
	ExitUsage     = 2
	ExitNoGateway = 3
	ExitNotFound  = 4
)

// exitTable explains the exit codes; help and docs/cli.md have it from here.
func exitTable() [][2]string {
	return [][2]string{
		{"0", "it worked"},
		{"1", "it failed; for status: the gateway is not ready; for doctor: something is wrong; for replay: something differs"},
		{"2", "the command line or the configuration is wrong"},
		{"3", "no gateway answers"},
		{"4", "what was named does not exist"},
	}
}

// Options are what main gives to the command.
type Options struct {
	Version string
	Kinds   []string // of devices, for config check

	Devices func(*config.Config) error                                       // says what is wrong with the settings of devices, each in the way of its kind
	Run     func(ctx context.Context, o RunOptions) error                    // the gateway, until ctx ends
	Layers  func(ctx context.Context, c *config.Config) ([]api.Layer, error) // how a worker is confined that is started to look
	Worker  func() int                                                       // a worker process; what it returns is the exit code
	Demo    func(ctx context.Context, o DemoOptions) error                   // the demo, until ctx ends
	Stage   func() (Stage, error)                                            // what runs the cases of functions

	Backup  func(ctx context.Context, c *config.Config, w io.Writer) error                   // of a gateway that does not run
	Restore func(ctx context.Context, c *config.Config, o RestoreOptions) (*Restored, error) // of a gateway that does not run

	Stdin          io.Reader // os.Stdin
	Stdout, Stderr io.Writer // os.Stdout, os.Stderr
	Colour         *bool     // nil: on a terminal, without NO_COLOR
}

// RunOptions are what "perigee run" was told. Config is loaded and valid; File and Overrides load it again.
type RunOptions struct {
	Config    *config.Config
	File      string
	Overrides config.Overrides
}

// DemoOptions are what "perigee demo" was told.
type DemoOptions struct {
	Dir    string        // where everything is kept; empty: the demo chooses
	For    time.Duration // how long; 0: until it is ended
	Plain  bool          // lines instead of the live view
	Stdin  io.Reader
	Stdout io.Writer
}

// Program is the command, ready to be called.
type Program struct {
	opts Options
	root *command
}

// New makes the command. It does no work yet.
func New(o Options) *Program {
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	p := &Program{opts: o}
	p.root = &command{name: "perigee", brief: "run small Lua functions next to the sensors", sub: p.commands()}
	return p
}

// commands is the whole list, in the order in which help shows it.
func (p *Program) commands() []*command {
	return []*command{
		runCommand(), demoCommand(), devCommand(), testCommand(), cloudCommand(),
		statusCommand(), topCommand(), functionsCommand(), eventsCommand(), recordCommand(), replayCommand(), deadCommand(), stateCommand(), devicesCommand(), syncCommand(),
		newCommand(), configCommand(), reloadCommand(), backupCommand(), restoreCommand(), doctorCommand(), versionCommand(), completionCommand(),
	}
}

// Main runs one command line, args[0] being the program's name, and returns the exit code. Ctx ends it: what follows something then ends well.
func (p *Program) Main(ctx context.Context, args []string) int {
	if len(args) == 2 && args[1] == "worker" && p.opts.Worker != nil {
		return p.opts.Worker()
	}
	line, err := p.root.arrange(args[min(1, len(args)):])
	if err == nil {
		err = p.execute(ctx, line)
	}
	return p.report(err)
}

// execute does what an arranged command line says.
func (p *Program) execute(ctx context.Context, line *line) error {
	if line.complete {
		p.root.complete(p.opts.Stdout, line.args)
		return nil
	}
	if line.help {
		writeHelp(p.opts.Stdout, line.path)
		return nil
	}
	cmd := line.path[len(line.path)-1]
	app := &cli.App{
		Name: "perigee", HideHelp: true, HideHelpCommand: true, HideVersion: true,
		DisableSliceFlagSeparator: true,
		Writer:                    io.Discard, ErrWriter: io.Discard,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usagef("%s", err) },
		Flags:          cmd.allFlags(),
		Action: func(c *cli.Context) error {
			if err := cmd.checkArgs(line.path, c.Args().Slice()); err != nil {
				return err
			}
			return cmd.run(&call{Context: c, p: p, ctx: ctx, args: c.Args().Slice(), out: newPrinter(p.opts.Stdout, p.opts.Colour)})
		},
	}
	return app.RunContext(ctx, append(append([]string{"perigee"}, line.flags...), append([]string{"--"}, line.args...)...))
}

// report tells people of an error and returns its exit code.
func (p *Program) report(err error) int {
	if err == nil {
		return ExitOK
	}
	var silent *exitError
	if errors.As(err, &silent) {
		return silent.code
	}
	msg := err.Error()
	if !strings.Contains(msg, "\nhint: ") {
		if h := hintOf(err); h != "" {
			msg += "\nhint: " + h
		}
	}
	fmt.Fprintf(p.opts.Stderr, "perigee: %s\n", msg)
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case api.IsCode(err, api.CodeNoGateway):
		return ExitNoGateway
	case api.IsCode(err, api.CodeNotFound):
		return ExitNotFound
	default:
		return ExitFailed
	}
}

// usageError is an error of the command line or the configuration.
type usageError struct {
	msg, hint string
}

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) *usageError {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

func (e *usageError) withHint(format string, args ...any) *usageError {
	return &usageError{msg: e.msg, hint: fmt.Sprintf(format, args...)}
}

func hintOf(err error) string {
	var u *usageError
	if errors.As(err, &u) {
		return u.hint
	}
	return ""
}

// exitError ends with a code after everything has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// call is one command line on its way.
type call struct {
	*cli.Context
	p    *Program
	ctx  context.Context
	args []string
	out  *printer
}

// json says whether --json was given.
func (c *call) json() bool { return c.Bool("json") }

// gateway returns a client for the gateway that the flags and the configuration name.
func (c *call) gateway() (*api.Client, error) {
	socket, err := c.socket()
	if err != nil {
		return nil, err
	}
	return api.Dial(socket), nil
}

func (c *call) socket() (string, error) {
	if s := c.String("socket"); s != "" {
		return s, nil
	}
	conf, err := config.Load(c.String("config"), config.Overrides{DataDir: c.String("data-dir")})
	if err != nil {
		return "", usagef("%s", err).withHint("or say where the gateway is, with --socket")
	}
	// A gateway that is installed belongs to the system; a person's own one goes first.
	if conf.File == "" && c.String("data-dir") == "" && !exists(conf.API.Socket) {
		if s := config.SystemDataDir + "/perigee.sock"; exists(s) {
			return s, nil
		}
	}
	return conf.API.Socket, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// followed makes the end that the user asked for a good one.
func (c *call) followed(err error) error {
	if c.ctx.Err() != nil {
		return nil
	}
	return err
}
