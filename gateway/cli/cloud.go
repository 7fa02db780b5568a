package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
)

func cloudCommand() *command {
	return &command{
		name: "cloud", brief: "receive what gateways send, for development", local: true, plain: true,
		text: `It is the far side of an uplink: a broker that takes batches and writes each record once, in order, as one CloudEvent a line.
With --out a batch is acknowledged only when its records are in that file, on the disk, and a restart goes on where it ended.
Duplicates are only counted. At the end it says on standard error what it had, and exits with 1 if records are missing that no gap explains.`,
		examples: []string{
			"perigee cloud",
			"perigee cloud --listen tcp://127.0.0.1:1884 --out records.ndjson",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "receive at `URL`", Value: "tcp://127.0.0.1:1884"},
			&cli.StringFlag{Name: "out", Usage: "append records to `FILE` instead of standard output"},
		},
		run: runCloud,
	}
}

func runCloud(c *call) error {
	r, err := receiver.New(receiver.Options{Listen: c.String("listen"), Out: c.String("out"), Log: slog.New(slog.NewTextHandler(c.p.opts.Stderr, nil))})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("receive at %s: %w; choose another port, such as --listen tcp://127.0.0.1:1885", c.String("listen"), err)
	}
	if err != nil {
		return fmt.Errorf("receive at %s: %w", c.String("listen"), err)
	}
	lines := &recordLines{w: c.out}
	if c.String("out") == "" {
		defer r.Subscribe(lines.write)()
	}
	fmt.Fprintf(c.p.opts.Stderr, "receiving at tcp://%s; interrupt to end\n", r.Addr())
	if err := r.Run(c.ctx); err != nil {
		return err
	}
	s := r.Stats()
	fmt.Fprintf(c.p.opts.Stderr, "%s, %s, %s, %s missing\n", plural(s.Records, "record"), plural(s.Duplicates, "duplicate"), plural(s.Gaps, "gap"), units.Group(s.Missing))
	for _, g := range s.Clashes {
		fmt.Fprintf(c.p.opts.Stderr, "two gateways live under the id %s\n", safe(g, 80))
	}
	if lines.err != nil {
		return fmt.Errorf("write records: %w", lines.err)
	}
	if s.Missing > 0 {
		return errors.New("records are missing that no gap explains")
	}
	return nil
}

// recordLines writes records, one a line, and keeps the first error.
type recordLines struct {
	mu  sync.Mutex // guards all below
	w   io.Writer
	buf []byte
	err error
}

func (l *recordLines) write(r record.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(r.Append(l.buf[:0]), '\n')
	if _, err := l.w.Write(l.buf); err != nil && l.err == nil {
		l.err = err
	}
}
