package script

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each row of the table of differences in docs/lua.md is true: the expression gives what the table says, here and with lua5.1.
func TestDifferencesAreAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/lua.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| here | Lua 5.1 | why |\n|---|---|---|---|---|\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	rows := regexp.MustCompile("(?m)^\\| [^|]*\\| `(.+)` \\| `([^`]+)` \\| `([^`]+)` \\| [^|]+\\|$").FindAllStringSubmatch(table, -1)
	require.Greater(t, len(rows), 15)
	require.Len(t, rows, strings.Count(table, "\n")+1, "every row is read")
	var script strings.Builder
	script.WriteString(`local function loadable(s) return (loadstring(s)) ~= nil end local function order(t) return "any" end `)
	for _, row := range rows {
		fmt.Fprintf(&script, "do local ok, v = pcall(function() return (%s) end) print(ok and tostring(v) or 'error') end\n", row[1])
		code := fmt.Sprintf("local function order(t) local s = '' for k in pairs(t) do s = s .. k end return s end local v = (%s) return tostring(v)", row[1])
		if source := regexp.MustCompile(`^loadable\("(.*)"\)$`).FindStringSubmatch(row[1]); source != nil {
			code = source[1] + " return 'true'"
		}
		require.Equal(t, `"`+row[2]+`"`, eval(t, code), row[1])
	}
	path, err := exec.LookPath("lua5.1")
	if err != nil {
		t.Skip("lua5.1 is not installed")
	}
	cmd := exec.Command(path, "-")
	cmd.Stdin = strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo")
	out, err := cmd.Output()
	require.NoError(t, err)
	for i, got := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		require.Equal(t, rows[i][3], got, rows[i][1])
	}
}

// Every name that Lua 5.1 has is here, or is named in docs/lua.md as missing; and what is named there is missing.
func TestMissingNamesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/lua.md")
	require.NoError(t, err)
	list := regexp.MustCompile(`(?s)does not exist: (.*?) obsolete\.`).FindSubmatch(text)
	require.NotNil(t, list)
	var missing []string
	for _, m := range regexp.MustCompile("`([a-z.]+)`").FindAllSubmatch(list[1], -1) {
		missing = append(missing, string(m[1]))
		require.Equal(t, `"nil"`, eval(t, "return type("+string(m[1])+")"), m[1])
	}
	path, err := exec.LookPath("lua5.1")
	if err != nil {
		t.Skip("lua5.1 is not installed")
	}
	out, err := exec.Command(path, "-e", `for k, v in pairs(_G) do if type(v) == "table" and v ~= _G and k ~= "arg" then for m in pairs(v) do print(k .. "." .. m) end elseif k ~= "arg" then print(k) end end`).Output()
	require.NoError(t, err)
	here := usableNames(t)
	for _, name := range strings.Fields(string(out)) {
		library, _, _ := strings.Cut(name, ".")
		if !slices.Contains(here, name) {
			require.True(t, slices.Contains(missing, name) || slices.Contains(missing, library), name)
		}
	}
}
