package script

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/luals"
)

// definition is a function in the definitions for editors, with the comment above it.
type definition struct {
	args    []string
	comment string
}

var (
	functionForm = regexp.MustCompile(`(?m)((?:^---.*\n)*)^function ([\w.]+)\(([^)]*)\) end$`)
	tableForm    = regexp.MustCompile(`(?m)((?:^---.*\n)*)^([\w]+) = \{\}$`)
	fieldForm    = regexp.MustCompile(`(?m)^---@field (\w+)\??`)
)

func splitArgs(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' })
}

func definitions(t *testing.T) (text string, calls map[string]definition) {
	t.Helper()
	text = string(luals.Files()[".perigee/perigee.lua"])
	calls = map[string]definition{}
	for _, m := range functionForm.FindAllStringSubmatch(text, -1) {
		calls[m[2]] = definition{splitArgs(m[3]), m[1]}
	}
	return text, calls
}

// class is the comment of a class in the definitions, with its fields.
func class(t *testing.T, text, name string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "---@class "+name+"\n")
	require.True(t, ok, name)
	var fields []string
	for line := range strings.Lines(rest) {
		m := fieldForm.FindStringSubmatch(line)
		if m == nil {
			break
		}
		fields = append(fields, m[1])
	}
	slices.Sort(fields)
	return fields
}

// Editors know every name that a script can use, and no other.
func TestDefinitionsAreComplete(t *testing.T) {
	text, calls := definitions(t)
	all := []string{"_G", "_VERSION"}
	for name := range calls {
		all = append(all, name)
	}
	for _, m := range tableForm.FindAllStringSubmatch(text, -1) {
		for _, f := range fieldForm.FindAllStringSubmatch(m[1], -1) {
			all = append(all, m[2]+"."+f[1])
		}
		if strings.Contains(m[1], "---@overload") {
			all = append(all, m[2])
		}
	}
	slices.Sort(all)
	require.Equal(t, usableNames(t), all)
	_, err := compileFile("perigee.lua", []byte(text), names{})
	require.NoError(t, err)
}

// The definitions and docs/lua.md say the same: arguments in name and order, what needs a permission and which, and the fields of event and ctx.
func TestDefinitionsAreAsDocumented(t *testing.T) {
	markdown, err := os.ReadFile("../../docs/lua.md")
	require.NoError(t, err)
	text, calls := definitions(t)
	documented := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^(?:### |\\| )`([a-z_][A-Za-z0-9_.]*)\\(([^`]*)\\)`").FindAllStringSubmatch(string(markdown), -1) {
		documented[m[1]] = splitArgs(strings.NewReplacer("function", "f").Replace(m[2]))
	}
	for name, d := range calls {
		require.Equal(t, documented[name], d.args, name)
		for _, arg := range d.args {
			require.Regexp(t, `(?m)^---@param `+regexp.QuoteMeta(arg)+`\??( |$)`, d.comment, "%s: %s", name, arg)
		}
		require.Equal(t, len(d.args), strings.Count(d.comment, "---@param"), name)
	}
	for name, permission := range map[string]string{"publish": "publish", "device.write": "devices.write", "device.read": "devices.read", "stream.append": "streams", "secret.get": "secrets",
		"http.get": "http", "http.post": "http", "http.put": "http", "http.patch": "http", "http.delete": "http", "http.request": "http"} {
		require.Contains(t, calls[name].comment, "Permission: "+permission+".", name)
		require.Regexp(t, "Permission: `"+permission+"`", section(string(markdown), name), name)
	}
	for argument, name := range map[string]string{"event": "perigee.Event", "ctx": "perigee.Context"} {
		var fields []string
		for _, m := range regexp.MustCompile("(?m)^\\| `"+argument+`\.(\w+)`).FindAllStringSubmatch(string(markdown), -1) {
			if m[1] != "data" || !slices.Contains(fields, "data") { // further down there are fields of event.data
				fields = append(fields, m[1])
			}
		}
		slices.Sort(fields)
		require.Equal(t, fields, class(t, text, name))
	}
	for _, kind := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(regexp.MustCompile("(?m)^\\| `event.type` \\|.*$").FindString(string(markdown))[15:], -1) {
		require.Contains(t, text, `"`+kind[1]+`"`)
	}
}

// section is what docs/lua.md says of a call: its own entry, or what stands above all calls of its library.
func section(markdown, name string) string {
	library, _, _ := strings.Cut(name, ".")
	own, _, _ := strings.Cut(markdown[strings.Index(markdown, "### `"+name+"("):][4:], "\n### ")
	if _, above, ok := strings.Cut(markdown, "\n## "+library+"\n"); ok {
		above, _, _ = strings.Cut(above, "\n### ")
		return above + own
	}
	return own
}

// The options that a call takes are those of its class. A wrong one makes the call list them.
func TestDefinitionsOfOptions(t *testing.T) {
	text, _ := definitions(t)
	for name, code := range map[string]string{
		"perigee.PublishOptions": `publish("alerts/x", 1, {nope = 1})`,
		"perigee.WriteOptions":   `device.write("fan", true, {nope = 1})`,
		"perigee.HTTPOptions":    `http.get("https://api.example.com/v1/x", {nope = 1})`,
	} {
		inv := testInvocation()
		inv.Perms.HTTP = []functions.HTTPRule{{Origin: "https://api.example.com", Path: "/v1/", Prefix: true}}
		out := runWith(t, New(Options{}), inv, body(code), noAnswers)
		require.NotNil(t, out.Fault, name)
		_, list, ok := strings.Cut(out.Fault.Message, "there are: ")
		require.True(t, ok, out.Fault.Message)
		options := splitArgs(strings.TrimSuffix(list, ")"))
		slices.Sort(options)
		require.Equal(t, options, class(t, text, name))
	}
	for name, pattern := range map[string]string{"perigee.AlarmOptions": `alarm.*?options\(opts, 2, \{(.*?)\}`, "perigee.ChangedOptions": `changed.*?options\(opts, 2, \{(.*?)\}`,
		"perigee.RateOptions": `rate.*?options\(opts, 2, \{(.*?)\}`} {
		m := regexp.MustCompile(`(?s)function signal\.` + pattern).FindSubmatch(signalSource)
		require.NotNil(t, m)
		options := splitArgs(strings.ReplaceAll(string(m[1]), " = true", ""))
		slices.Sort(options)
		require.Equal(t, options, class(t, text, name))
	}
}
