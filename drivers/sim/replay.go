package sim

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
)

// Bounds of a recording, which is held in memory.
const (
	maxRecording = 8 << 20 // bytes
	maxRows      = 100_000
	maxColumns   = 64
)

// replay emits the rows of a recording, again and again: a CSV file with a line of field names. A column "time" (RFC 3339, or seconds)
// gives the rhythm; without it a row comes every period.
type replay struct {
	name  string
	file  string
	every time.Duration

	mu   sync.Mutex // guards what follows
	rows []row
	next int
	last drivers.Fields
}

type row struct {
	fields drivers.Fields
	after  time.Duration // since the row before it
}

// newReplay looks whether the recording is there; what is in it is read when it is played first.
func newReplay(name, file string, every time.Duration, dir string) (*replay, error) {
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	switch info, err := os.Stat(file); {
	case err != nil:
		return nil, fmt.Errorf("replay: %w; its path is relative to the folder of the configuration", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("replay: %s is no file; name a CSV file with a line of field names", file)
	}
	return &replay{name: name, file: file, every: every}, nil
}

// Run emits the rows; it goes on where it stopped.
func (r *replay) Run(ctx context.Context, emit drivers.Emit) error {
	if err := r.load(); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		fields, wait := r.step()
		if done, err := send(ctx, emit, r.name, fields); done {
			return err
		}
		timer.Reset(wait)
	}
}

// Read returns the row that was emitted last, or the first.
func (r *replay) Read(context.Context) (drivers.Fields, error) {
	if err := r.load(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return maps.Clone(r.rows[0].fields), nil
	}
	return maps.Clone(r.last), nil
}

// step returns the next row and how long to wait after it.
func (r *replay) step() (drivers.Fields, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.rows[r.next].fields
	r.next = (r.next + 1) % len(r.rows)
	return maps.Clone(r.last), r.rows[r.next].after
}

// load reads the file the first time that it is needed. A file that is absent may come later.
func (r *replay) load() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows != nil {
		return nil
	}
	f, err := os.Open(r.file)
	if err != nil {
		return fmt.Errorf("device %s: open its recording: %w", r.name, err)
	}
	defer f.Close()
	rows, err := parseRecording(io.LimitReader(f, maxRecording+1), r.every)
	if err != nil {
		return fmt.Errorf("device %s: read %s: %w", r.name, r.file, err)
	}
	r.rows = rows
	return nil
}

func parseRecording(from io.Reader, every time.Duration) ([]row, error) {
	counted := &counter{r: from}
	in := csv.NewReader(counted)
	in.TrimLeadingSpace = true
	in.Comment = '#'
	in.ReuseRecord = true
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("its first line must name the fields: %w", err)
	}
	names := append([]string(nil), head...)
	if len(names) > maxColumns {
		return nil, fmt.Errorf("it has %d columns, at most %d are read", len(names), maxColumns)
	}
	var rows []row
	var before time.Time
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(rows) >= maxRows || counted.n > maxRecording {
			return nil, fmt.Errorf("it is too long; at most %d lines and %d MiB", maxRows, maxRecording>>20)
		}
		line, _ := in.FieldPos(0)
		r, at, err := parseRow(names, record)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		r.after = every
		if !at.IsZero() && !before.IsZero() {
			r.after = max(at.Sub(before), time.Millisecond)
		}
		before = at
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("there are no readings after the line of names")
	}
	return rows, nil
}

func parseRow(names, record []string) (r row, at time.Time, err error) {
	r.fields = drivers.Fields{}
	for i, cell := range record {
		switch {
		case names[i] == "time":
			if at, err = parseTime(cell); err != nil {
				return r, at, err
			}
		case cell == "": // nothing was measured
		case cell == "true" || cell == "false":
			r.fields[names[i]] = cell == "true"
		default:
			r.fields[names[i]] = cell
			if f, err := strconv.ParseFloat(cell, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				r.fields[names[i]] = f
			}
		}
	}
	return r, at, nil
}

// parseTime reads RFC 3339 or seconds since any moment.
func parseTime(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(f) > 1e11 {
		return time.Time{}, fmt.Errorf("%.40q is no time; write 2026-05-01T12:00:00Z, or seconds", s)
	}
	return time.UnixMicro(int64(f * 1e6)), nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

// Read is for csv.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
