package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
)

func eventSaveCommand() *command {
	return &command{
		name: "save", usage: "ID", brief: "make a test case of an event", min: 1, max: 1,
		text: `ID is an event that a function has run on, or a dead letter. What the function read, the time and what it did become a file in the tests/ of
its folder, which is then run. The gateway remembers the last invocations only, and none with more than 16 KiB; a dead letter
that it no longer remembers is run on the state of now, without doing anything.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "function", Usage: "only those that concern function `NAME`"},
			&cli.StringFlag{Name: "dir", Usage: "the function's folder is `DIR` (default: its name, here or in functions/)"},
		},
		examples: []string{"perigee events save 01J9ZQ4W", "perigee events save overheat:3f --dir src/overheat"},
		run: func(c *call) error {
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			got, err := gw.EventCase(c.ctx, c.args[0], c.String("function"))
			if err != nil {
				return err
			}
			dir, err := functionFolder(c.String("dir"), got.Function)
			if err != nil {
				return err
			}
			file, err := saveCase(dir, got)
			if err != nil {
				return err
			}
			if c.json() {
				return c.out.json(map[string]string{"function": got.Function, "revision": got.Revision, "event": got.Event, "file": file})
			}
			c.out.line("wrote %s", file)
			return c.tryCase(dir, file, got)
		},
	}
}

// functionFolder finds the folder of a function.
func functionFolder(dir, function string) (string, error) {
	if dir != "" {
		if !exists(filepath.Join(dir, "function.yaml")) {
			return "", noBundle(dir)
		}
		return filepath.Clean(dir), nil
	}
	for _, d := range []string{function, filepath.Join("functions", function)} {
		if exists(filepath.Join(d, "function.yaml")) {
			return d, nil
		}
	}
	return "", usagef("the folder of function %s is not here", function).withHint("say where it is, with --dir")
}

var notInFileNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// saveCase writes a case into a file of its own.
func saveCase(dir string, got *api.EventCase) (string, error) {
	id := strings.Trim(notInFileNames.ReplaceAllString(got.Event, "-"), "-")
	id = id[max(0, len(id)-40):]
	if id == "" {
		id = "event"
	}
	tests := filepath.Join(dir, "tests")
	if err := os.MkdirAll(tests, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(tests, "saved-"+id+".yaml")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return "", usagef("%s exists already", file).withHint("the event was saved before; remove the file to save it anew")
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(got.Text)
	return file, errors.Join(err, f.Close())
}

// tryCase runs what was saved, since the folder may have other code than the gateway.
func (c *call) tryCase(dir, file string, got *api.EventCase) error {
	stage, err := c.p.opts.Stage()
	if err != nil {
		return err
	}
	defer stage.Close()
	var text bytes.Buffer
	t := &tester{out: &printer{Writer: &text, colour: c.out.colour}, stage: stage, brief: true}
	if err := t.test(c.ctx, tests{dir: dir, file: "tests/" + filepath.Base(file)}); err != nil {
		return err
	}
	if t.failed == 0 && t.wrong == 0 {
		c.out.line("it passes: perigee test %s", quoteArg(file))
		return nil
	}
	fmt.Fprint(c.out, text.String())
	c.out.line("the function in %s does something else than revision %s on the gateway did", dir, got.Revision)
	return nil
}
