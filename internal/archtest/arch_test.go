// Package archtest holds the house to its plan: which room may look into which. It has only tests; each rule carries
// its reason, so that whoever breaks one knows what was meant.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/perigee-iot/perigee"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// path is the package's place in the house: "gateway/engine".
func (p *pkg) path() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// all are the imports of the package and its tests.
func (p *pkg) all() []string { return slices.Concat(p.Imports, p.TestImports, p.XTestImports) }

func list(t *testing.T, args ...string) []*pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	var pkgs []*pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, &p)
	}
}

func inModule(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, module+"/")
	return rest, ok
}

func top(path string) string { return strings.SplitN(path, "/", 2)[0] }

// TestArrowsPointDown: gateway → {functions, drivers, sync} → internal. The wings know nothing of each other, so that
// each can be understood, tested and replaced alone; only the gateway brings them together.
func TestArrowsPointDown(t *testing.T) {
	wings := []string{"functions", "drivers", "sync"}
	for _, p := range list(t, "./...") {
		from := top(p.path())
		for _, imp := range p.Imports {
			path, ok := inModule(imp)
			if !ok {
				continue
			}
			to := top(path)
			switch {
			case from == to, from == "gateway" && (slices.Contains(wings, to) || to == "internal" || to == "configs"):
			case slices.Contains(wings, from) && to == "internal":
			case from == "build", from == "configs" && to != "gateway":
			default:
				t.Errorf("%s imports %s: arrows point down only, gateway → functions, drivers, sync → internal", p.path(), path)
			}
		}
	}
}

// TestOnlyAppKnowsAllParts: what the daemon is made of stands in one place, so that no part reaches around it.
func TestOnlyAppKnowsAllParts(t *testing.T) {
	for _, p := range list(t, "./gateway/...") {
		if strings.HasPrefix(p.path(), "gateway/cmd") || p.path() == "gateway/app" {
			continue
		}
		for _, imp := range p.Imports {
			if imp == module+"/gateway/app" {
				t.Errorf("%s imports gateway/app, which only the command may", p.path())
			}
		}
	}
}

// TestLibrariesHaveOneDoor: a library that can lose data, take the process down or make the binary large has one importer.
func TestLibrariesHaveOneDoor(t *testing.T) {
	doors := map[string]struct {
		room   string
		reason string
	}{
		"github.com/dgraph-io/badger/":   {"internal/store", "the store is the only writer, and knows its defects"},
		"github.com/yuin/gopher-lua":     {"functions/script", "Lua is parsed and run in worker processes only"},
		"github.com/dgraph-io/ristretto": {"internal/store", "it comes with Badger"},
	}
	for _, p := range list(t, "./...") {
		for lib, door := range doors {
			for _, imp := range p.all() {
				if strings.HasPrefix(imp, strings.TrimSuffix(lib, "/")) && p.path() != door.room {
					t.Errorf("%s imports %s; only %s may: %s", p.path(), imp, door.room, door.reason)
				}
			}
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "github.com/nats-io/nats-server") {
				t.Errorf("%s imports %s, a server that belongs in tests only", p.path(), imp)
			}
		}
	}
}

// TestClientCommandsAreLight: a command that only asks the gateway does not carry its store and its interpreter along.
// The commands that need them are passed in by main.
func TestClientCommandsAreLight(t *testing.T) {
	light := []string{"gateway/cli", "gateway/api", "gateway/demo"}
	for _, p := range list(t, "./gateway/...") {
		if !slices.Contains(light, p.path()) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "github.com/dgraph-io/badger") || strings.HasPrefix(dep, "github.com/yuin/gopher-lua") {
				t.Errorf("%s depends on %s", p.path(), dep)
			}
		}
	}
}

// TestEveryPackageIsExplained: each package has one package comment, in one file.
func TestEveryPackageIsExplained(t *testing.T) {
	for _, p := range list(t, "./...") {
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var with []string
		for _, f := range files {
			if parse(t, p, f).Doc != nil {
				with = append(with, f)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s has %d package comments (%s), it should have one", p.path(), len(with), strings.Join(with, ", "))
		}
	}
}

// TestNothingRunsBehindTheReadersBack: no init function.
func TestNothingRunsBehindTheReadersBack(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, f := range p.GoFiles {
			for _, d := range parse(t, p, f).Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s/%s has an init function: do it where a reader sees it", p.path(), f)
				}
			}
		}
	}
}

// TestNamesAreOurOwn: no package bears the name of a standard one, or one that says nothing.
func TestNamesAreOurOwn(t *testing.T) {
	taken := map[string]bool{"util": true, "utils": true, "common": true, "misc": true, "helpers": true}
	for _, p := range list(t, "std") {
		if !strings.Contains(p.ImportPath, "internal") && !strings.HasPrefix(p.ImportPath, "vendor/") {
			taken[p.Name] = p.Name != "main"
		}
	}
	for _, p := range list(t, "./...") {
		if taken[p.Name] {
			t.Errorf("%s is called %s, as a package of the standard library is, or by a name that says nothing", p.path(), p.Name)
		}
	}
}

func parse(t *testing.T, p *pkg, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
