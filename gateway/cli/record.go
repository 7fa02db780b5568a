package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions/recording"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

func recordCommand() *command {
	return &command{
		name: "record", usage: "FILE", brief: "record what functions do on real events, to replay it on another revision", min: 1, max: 1,
		text: `From now on each invocation is written to FILE: its event, what the function read, the time, the seed and the outcome; see perigee replay.
It ends after a time, at a size or a number of invocations, when it is interrupted, or with the gateway; whatever ends it, the file is
whole. Secrets are not in it. FILE is one JSON object a line, for its owner only, and - is standard output. The gateway stores
nothing: if this command does not keep up, invocations are left out and counted.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "function", Usage: "only those that concern function `NAME`"},
			&cli.StringFlag{Name: "key", Usage: "only invocations of `KEY`"},
			&cli.StringFlag{Name: "for", Usage: "how long: `TIME`, up to 24h", Value: "1m"},
			&cli.StringFlag{Name: "size", Usage: "the file has `BYTES` at most, up to 1GiB", Value: "16MiB"},
			&cli.IntFlag{Name: "count", Usage: "end after `N` invocations"},
		},
		examples: []string{"perigee record afternoon.ndjson --for 4h", "perigee record cellar.ndjson --function overheat --key cellar --count 100"},
		run:      recordEvents,
	}
}

func recordEvents(c *call) error {
	q := api.RecordQuery{Function: c.String("function"), Invocations: c.Int("count")}
	if c.IsSet("key") {
		key := c.String("key")
		q.Key = &key
	}
	var err error
	if q.For, err = units.ParseDuration(c.String("for")); err != nil || q.For <= 0 {
		return usagef("--for is %q, it should be a time such as 10m", c.String("for"))
	}
	if q.Bytes, err = units.ParseSize(c.String("size")); err != nil || q.Bytes <= 0 {
		return usagef("--size is %q, it should be a size such as 16MiB", c.String("size"))
	}
	w := &recordFile{name: c.args[0], stdout: c.p.opts.Stdout, left: map[string]int{}}
	if w.name != "-" && exists(w.name) {
		return fileExists(w.name)
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	began := time.Now()
	err = c.followed(gw.Record(c.ctx, q, w.line))
	why := recording.EndGateway
	if c.ctx.Err() != nil {
		why = recording.EndStopped
	}
	if cerr := w.close(why); err == nil {
		err = cerr
	}
	if w.bytes == 0 {
		return err
	}
	return errors.Join(err, w.report(c, time.Since(began)))
}

func fileExists(name string) error {
	return usagef("%s exists already", name).withHint("give another name; a recording is never written over")
}

// recordFile is where a recording goes. It is made with the first line, so that a recording that cannot begin leaves no file.
type recordFile struct {
	name   string
	stdout io.Writer
	file   *os.File
	bytes  int64
	count  int
	left   map[string]int
	end    *recording.End
}

func (w *recordFile) line(line json.RawMessage) error {
	var l struct {
		Invocation json.RawMessage    `json:"invocation"`
		LeftOut    *recording.LeftOut `json:"left_out"`
		End        *recording.End     `json:"end"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	if l.Invocation != nil {
		w.count++
	}
	if l.LeftOut != nil {
		for why, n := range l.LeftOut.Invocations {
			w.left[why] += n
		}
	}
	w.end = l.End
	return w.write(append(line[:len(line):len(line)], '\n'))
}

// write writes whole lines only, as far as the disk takes them.
func (w *recordFile) write(b []byte) error {
	w.bytes += int64(len(b))
	if w.name == "-" {
		_, err := w.stdout.Write(b)
		return err
	}
	if w.file == nil {
		f, err := os.OpenFile(w.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fileExists(w.name)
		}
		if err != nil {
			return err
		}
		w.file = f
	}
	n, err := w.file.Write(b)
	if err != nil && n > 0 {
		if at, serr := w.file.Seek(-int64(n), io.SeekCurrent); serr == nil {
			_ = w.file.Truncate(at) // the torn line; a reader leaves it out, too
		}
	}
	return err
}

// close ends a recording that the gateway has not ended.
func (w *recordFile) close(why string) error {
	var err error
	if w.bytes > 0 && w.end == nil {
		w.end = &recording.End{Why: why, At: time.Now().UTC(), Invocations: w.count}
		if len(w.left) > 0 {
			w.end.LeftOut = w.left
		}
		var b []byte
		if b, err = recording.Encode(&recording.Line{End: w.end}); err == nil {
			err = w.write(b)
		}
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Sync(), w.file.Close())
	}
	return err
}

// report says what was recorded: on standard error if the recording is on standard output.
func (w *recordFile) report(c *call, took time.Duration) error {
	out := c.out
	if w.name == "-" {
		out = &printer{Writer: c.p.opts.Stderr}
	}
	if c.json() {
		return out.json(struct {
			File  string `json:"file"`
			Bytes int64  `json:"bytes"`
			*recording.End
		}{w.name, w.bytes, w.end})
	}
	ended := map[string]string{
		recording.EndSize: "it is as large as --size allows", recording.EndStopped: "interrupted", recording.EndGateway: "the gateway stopped, or the connection to it broke",
	}[w.end.Why]
	if ended != "" {
		ended = "; " + ended
	}
	out.line("recorded %s in %s, %s%s", plural(int64(w.count), "invocation"), span(took.Round(time.Second)), size(w.bytes), ended)
	writeLeftOut(out, w.left)
	if w.name != "-" && w.count > 0 {
		out.line("see what another revision does: perigee replay %s --function FOLDER", quoteArg(w.name))
	}
	return nil
}

// writeLeftOut says what is not in a recording.
func writeLeftOut(out *printer, left map[string]int) {
	for _, why := range []string{recording.TooLarge, recording.TooFast} {
		if n := left[why]; n > 0 {
			out.line("%s", out.warn(fmt.Sprintf("left out: %s, %s", plural(int64(n), "invocation"), map[string]string{
				recording.TooLarge: "too large for a line", recording.TooFast: "since they came faster than they could be written"}[why])))
		}
	}
}
