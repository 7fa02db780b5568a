// Package doctest keeps what the documentation shows true. It has only tests.
//
// A fenced block with the language console is a part of a session: lines that begin with "$ " are commands, given one after
// another to one shell in an empty folder, and what stands below is what they print. A block with file=NAME is a file that is
// saved there. Every other block is only to be read.
//
//	```console            run, and compared
//	```console exit=1     the last command of the block ends with 1
//	```console retry      asked again until the answer is as shown; for commands that only look
//	```lua file=warm/main.lua
//
// In what is printed, "…" stands for anything within a line, a line of "…" for any number of lines, and blanks count as one.
package doctest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/script"
)

const top = "../.."

// guides are the documents of the house.
func guides(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(top + "/docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	decisions, err := filepath.Glob(top + "/docs/decisions/*.md")
	require.NoError(t, err)
	return append(append(files, decisions...), top+"/README.md", top+"/CHANGELOG.md")
}

// TestCommands runs what the documents show.
func TestCommands(t *testing.T) {
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, top+"/gateway/cmd/perigee")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, file := range guides(t) {
		blocks := parse(t, file)
		if !hasCommands(blocks) {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := open(t, bin)
			for _, b := range blocks {
				t.Logf("%s:%d", file, b.line)
				s.play(b)
			}
		})
	}
}

// TestFunctions loads and compiles every function that a document has in full.
func TestFunctions(t *testing.T) {
	seen := 0
	for _, file := range guides(t) {
		folders := map[string]map[string][]byte{}
		for _, b := range parse(t, file) {
			dir, name := filepath.Split(b.file)
			if b.file == "" || dir == "" {
				continue
			}
			dir = strings.TrimSuffix(dir, "/")
			if folders[dir] == nil {
				folders[dir] = map[string][]byte{}
			}
			folders[dir][name] = []byte(b.text())
			if len(folders[dir]["function.yaml"]) == 0 || len(folders[dir]["main.lua"]) == 0 {
				continue
			}
			seen++
			got, err := bundle.FromFiles(folders[dir], filepath.Base(dir))
			require.NoError(t, err, "%s:%d", file, b.line)
			if fault := script.New(script.Options{}).Load(got.Digest, got.Files); fault != nil {
				t.Errorf("%s:%d: %s", file, b.line, fault.Message)
			}
		}
	}
	require.NotZero(t, seen)
}

// TestLinks: what a document points to is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)\s]*)?\)`)
	for _, file := range guides(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", file, m[1])
			}
		}
	}
}

// TestArchitectureNamesEveryPackage: the picture of the house has every package and no other.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	cmd := exec.Command("go", "list", "./...")
	cmd.Dir = top
	out, err := cmd.Output()
	require.NoError(t, err)
	var want []string
	for _, p := range strings.Fields(string(out)) {
		want = append(want, strings.TrimPrefix(p, "github.com/perigee-iot/perigee/"))
	}
	var have []string
	for _, b := range parse(t, top+"/docs/architecture.md") {
		if b.has("house") {
			have = append(have, house(b.lines)...)
		}
	}
	require.ElementsMatch(t, want, have, "the picture in docs/architecture.md and go list ./... differ")
}

// house reads a tree of folders, two blanks deeper each, and returns the paths of packages: lines with "/" at the end of the name are
// folders without one.
func house(lines []string) (paths []string) {
	var at []string
	for _, l := range lines {
		name, _, _ := strings.Cut(strings.TrimSpace(l), " ")
		depth := (len(l) - len(strings.TrimLeft(l, " "))) / 2
		if name == "" || depth > len(at) {
			continue // the rest of an explanation
		}
		at = append(at[:depth], strings.TrimSuffix(name, "/"))
		if !strings.HasSuffix(name, "/") {
			paths = append(paths, strings.Join(at, "/"))
		}
	}
	return paths
}

// freePorts finds ports that nobody listens on, below those that the system gives to connections.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(20000 + rand.IntN(10000))
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		ln.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatal("no port is free")
	return nil
}
