// Command overlay mends one line of a library for builds on 32 bits, without a fork.
//
// The allocator in github.com/dgraph-io/ristretto/v2/z keeps the number of its current buffer in the upper half of a
// 64-bit integer, but shifts an int: on 32 bits the result is always 0, so that its second buffer is its first one
// again, and Badger writes tables over themselves without an error. This program copies the module out of the module cache, corrects that
// line, and writes what `go build -overlay` wants. Go does not overlay files of the module cache itself, so what it
// replaces is go.mod, by one that points to the copy:
//
//	go run ./build/overlay -o dist/overlay.json
//	GOARCH=arm go build -overlay dist/overlay.json ./gateway/cmd/perigee
//
// It fails if the line is not there exactly once: then the library has changed, and somebody must look.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	module = "github.com/dgraph-io/ristretto/v2"
	file   = "z/allocator.go"
	wrong  = "atomic.StoreUint64(&a.compIdx, uint64((bufIdx+1)<<32))"
	right  = "atomic.StoreUint64(&a.compIdx, uint64(bufIdx+1)<<32)"
)

func main() {
	out := flag.String("o", "dist/overlay.json", "`FILE` to write; the mended module is put beside it")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := ask("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return err
	}
	if dir == "" {
		return fmt.Errorf("%s is not in the module cache: run go mod download", module)
	}
	gomod, err := ask("env", "GOMOD")
	if err != nil {
		return err
	}
	return write(dir, gomod, out)
}

// ask runs the go command and returns the line that it prints.
func ask(args ...string) (string, error) {
	out, err := exec.Command("go", args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// write copies the module in dir, mends it, and writes a go.mod that uses it and the overlay that puts that in gomod's place.
func write(dir, gomod, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	base := strings.TrimSuffix(out, filepath.Ext(out))
	if err := os.RemoveAll(base); err != nil {
		return err
	}
	copied := filepath.Join(base, "ristretto")
	if err := copyModule(dir, copied); err != nil {
		return fmt.Errorf("copying %s: %w", dir, err)
	}
	mine := filepath.Join(base, "go.mod")
	text, err := os.ReadFile(gomod)
	if err != nil {
		return err
	}
	if err := os.WriteFile(mine, text, 0o644); err != nil {
		return err
	}
	if _, err := ask("mod", "edit", "-replace="+module+"="+copied, mine); err != nil {
		return err
	}
	overlay, err := json.MarshalIndent(map[string]map[string]string{"Replace": {gomod: mine}}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(overlay, '\n'), 0o644)
}

// copyModule copies a module's sources, with the one file mended. Files of the module cache are read-only; the copies are not.
func copyModule(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.ToSlash(name) == file {
			mended, err := mend(string(text))
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			text = []byte(mended)
		}
		return os.WriteFile(target, text, 0o644)
	})
}

// mend corrects the line.
func mend(text string) (string, error) {
	if n := strings.Count(text, wrong); n != 1 {
		return "", fmt.Errorf("%q is there %d times, not once: the library has changed, see whether this is still needed", wrong, n)
	}
	return strings.Replace(text, wrong, right, 1), nil
}
