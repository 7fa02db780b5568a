package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"unicode/utf8"
)

// edited lets the user change the payload of a letter. JSON is shown with a line for each field, and goes back in as it was written: on one line.
func (c *call) edited(id string) ([]byte, error) {
	gw, err := c.gateway()
	if err != nil {
		return nil, err
	}
	d, err := gw.DeadLetter(c.ctx, id)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(d.Data) {
		return nil, usagef("the payload of %s is not text and cannot be edited", id).withHint("perigee dead show %s --payload > FILE, change it, and give it with --data FILE", id)
	}
	text, ending := d.Data, ".txt"
	var pretty bytes.Buffer
	isJSON := json.Indent(&pretty, d.Data, "", "  ") == nil
	if isJSON {
		text, ending = append(pretty.Bytes(), '\n'), ".json"
	}
	name, got, err := c.edit("perigee-letter-*"+ending, text)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(got, text) {
		_ = os.Remove(name)
		return nil, usagef("the payload is as it was: nothing was replayed").withHint("to replay it as it was, leave --edit out")
	}
	if isJSON {
		var tight bytes.Buffer
		if err := json.Compact(&tight, got); err != nil {
			return nil, usagef("what you wrote is not JSON: %s; nothing was replayed", err).withHint("it is in %s: mend it, and give it with --data", name)
		}
		got = tight.Bytes()
	}
	_ = os.Remove(name)
	return got, nil
}

// edit opens text in the user's editor and returns what it has become, and the file that it is in.
func (c *call) edit(pattern string, text []byte) (name string, got []byte, err error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	f, err := os.CreateTemp("", pattern) // for its owner only
	if err != nil {
		return "", nil, err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(c.ctx, "sh", "-c", editor+` "$1"`, "sh", f.Name()) // as git does: the variable may have arguments
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.p.opts.Stdin, c.p.opts.Stdout, c.p.opts.Stderr
	if c.json() {
		cmd.Stdout = c.p.opts.Stderr
	}
	if err := cmd.Run(); err != nil {
		_ = os.Remove(f.Name())
		return "", nil, fmt.Errorf("the editor %q: %w; nothing was replayed", editor, err)
	}
	in, err := os.Open(f.Name())
	if err != nil {
		return "", nil, err
	}
	defer in.Close()
	got, err = io.ReadAll(io.LimitReader(in, maxPayload+1))
	if err == nil && len(got) > maxPayload {
		err = usagef("what you wrote is larger than %s", size(maxPayload))
	}
	return f.Name(), got, err
}
