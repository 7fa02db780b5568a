package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/luals"
)

func newCommand() *command {
	return &command{
		name: "new", usage: "NAME", brief: "write the folder of a new function", min: 1, max: 1, local: true, plain: true,
		text: `NAME is the folder to make; its last part is the function's name. What is written can be applied as it is. Files whose names
begin with a dot are no part of the function: with them, editors that use lua-language-server complete and check its code.
--on says what triggers it: mqtt:TOPIC, device:NAME, every:15m, function:NAME, state:FUNCTION/NAME or gateway:start.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "on", Usage: "what `TRIGGER` runs it", Value: "mqtt:sensors/{room}"},
			&cli.StringFlag{Name: "publish", Usage: "it may publish to the MQTT `FILTER`"},
		},
		examples: []string{
			"perigee new overheat --on 'mqtt:zigbee2mqtt/{room}' --publish 'alerts/#'",
			"perigee new report --on every:15m && perigee functions apply report",
		},
		run: func(c *call) error {
			dir := filepath.Clean(c.args[0])
			files, err := scaffold(filepath.Base(dir), c.String("on"), c.String("publish"))
			if err != nil {
				return err
			}
			maps.Copy(files, luals.Files())
			if err := writeNew(dir, files); err != nil {
				return err
			}
			c.out.line("wrote %s and %s", filepath.Join(dir, "function.yaml"), filepath.Join(dir, "main.lua"))
			c.out.line("apply it with: perigee functions apply %s", quoteArg(dir))
			c.out.line("or work on it with: perigee dev %s", quoteArg(dir))
			return nil
		},
	}
}

// writeNew writes files into a folder that is not there yet.
func writeNew(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s exists already", dir).withHint("choose another name, or remove it first")
	}
	if err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var topicParam = regexp.MustCompile(`\{[^}/]*\}`)

// scaffold makes the files and sees to it that they are right.
func scaffold(name, on, publish string) (map[string][]byte, error) {
	if err := functions.CheckName(name); err != nil {
		return nil, nameless(name, err)
	}
	kind, what, ok := strings.Cut(on, ":")
	if !ok || what == "" || !slices.Contains([]string{"mqtt", "device", "every", "function", "state", "gateway"}, kind) {
		return nil, usagef("--on %s is not a trigger", on).withHint("write mqtt:TOPIC, device:NAME, every:15m, function:NAME, state:FUNCTION/NAME or gateway:start")
	}
	files := map[string][]byte{"function.yaml": []byte(specText(name, kind, what, publish)), "main.lua": []byte(luaText(name, kind, publish))}
	if _, err := bundle.FromFiles(files, name); err != nil {
		return nil, usagef("a function %s with --on %s would be wrong: %s", name, on, err)
	}
	return files, nil
}

// nameless is the error for a name that no function can have, with one that it could.
func nameless(name string, err error) error {
	plain := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
	if functions.CheckName(plain) != nil {
		return usagef("%s", err)
	}
	return usagef("%s", err).withHint("such as: perigee new %s", plain)
}

func specText(name, kind, what, publish string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# What runs %s, and all that it may do. Every key is optional but triggers.", name)
	line("description: Count the events of %s", strings.ReplaceAll(what, "\"", ""))
	line("")
	line("triggers:")
	switch kind {
	case "mqtt":
		line("  - mqtt: %q # {name} is one level and event.params.name; + and # as in MQTT", what)
		line("    # has: [temperature] # skipped, without waking a worker, unless the payload has these fields")
	case "gateway":
		line("  - gateway: [%s] # start, online, offline", what)
	case "every":
		line("  - every: %s", what)
	default:
		line("  - %s: %q", kind, what)
	}
	line("")
	if p := topicParam.FindAllString(what, -1); kind == "mqtt" && len(p) > 0 {
		line("# What an event is about. Events of one key run in order, one at a time, and have their own state.")
		line("key: %q", strings.Join(p, "/"))
		line("")
	}
	if publish == "" {
		line("# What it may do beyond computing; anything else is a fault that names the missing line.")
		line("# permissions:")
		line("#   publish: [\"alerts/#\"]")
		line("#   streams: [alerts]")
		line("#   devices: {read: [cellar], write: [fan]}")
	} else {
		line("# What it may do beyond computing; anything else is a fault that names the missing line.")
		line("permissions:")
		line("  publish: [%q]", publish)
		line("  # streams: [alerts]")
		line("  # devices: {read: [cellar], write: [fan]}")
	}
	line("")
	line("# Values that a gateway may set anew, under settings: in its gateway.yaml.")
	line("env: {every: 10}")
	return b.String()
}

func luaText(name, kind, publish string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("-- %s runs once for each event. It does nothing itself: what it asks for here happens when it returns, all or", name)
	line("-- nothing, and that is why it can be tried again after a fault. Nothing carries over to the next event but state.")
	line("---@param event perigee.Event")
	line("---@param ctx perigee.Context")
	line("return function(event, ctx)")
	switch kind {
	case "mqtt":
		line("  -- event.data is the payload if that is JSON, event.raw the text; event.topic, event.params and event.time say more.")
	default:
		line("  -- event.data is what the trigger has to say; event.type and event.time say more.")
	}
	line("  local count = state.get(\"count\", 0) + 1")
	line("  state.set(\"count\", count)")
	line("")
	line("  if count %% ctx.env.every == 0 then")
	line("    log.info(count .. \" events so far\")")
	if publish != "" {
		line("    publish(%q, {count = count})", publishTopic(name, publish))
	}
	line("  end")
	line("  return {count = count} -- the result: other functions can run on it")
	line("end")
	return b.String()
}

// publishTopic is a topic that the filter allows.
func publishTopic(name, filter string) string {
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if l == "+" || l == "#" {
			levels[i] = name
		}
	}
	return strings.Join(levels, "/")
}
