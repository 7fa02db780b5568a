// Package bundle reads functions as their authors keep them: a folder with function.yaml and main.lua, perhaps lib/
// and tests/.
//
//	overheat/
//	  function.yaml   what triggers it and what it may do
//	  main.lua        returns the function
//	  lib/…           modules for require, *.lua
//	  tests/…         cases for perigee test
//
// What editors and people leave beside them (dotfiles, backups, READMEs) is left out, anything else is refused rather than
// ignored, since it was meant to do something. Bundles come from people, from the control API and over MQTT: paths, sizes and counts are
// checked here, once, for all of them.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/functions"
)

// What a bundle may be at most.
const (
	MaxFile  = functions.MaxSource // bytes of one file; a larger Lua source is not safe to parse
	MaxTotal = 512 << 10           // bytes of all files
	MaxFiles = 64
	maxPath  = 200 // bytes of a path
)

const mainHint = `main.lua is missing; it returns the function: "return function(event, ctx) … end"`

// Load reads the bundle in a folder. Links may lead to files within the folder, never out of it.
func Load(dir string) (*functions.Bundle, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open function folder: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open function folder: %w", err)
	}
	files, err := read(root, dir)
	if err != nil {
		return nil, err
	}
	return build(files, filepath.Base(abs), func(p string) string { return filepath.Join(dir, filepath.FromSlash(p)) })
}

// read gathers the files that belong to a bundle, and stops as soon as they are too many.
func read(root *os.Root, dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	total := 0
	err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		where := filepath.Join(dir, filepath.FromSlash(p))
		if ignored(p) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return checkFolder(p, where)
		}
		data, err := readFile(root, p, where)
		if err != nil {
			return err
		}
		files[p] = data
		if total += len(data); total > MaxTotal || len(files) > MaxFiles {
			return tooLarge(dir)
		}
		return nil
	})
	return files, err
}

func tooLarge(name string) error {
	return fmt.Errorf("%s: a function has at most %d files and %d KiB in all", name, MaxFiles, MaxTotal>>10)
}

// checkFolder refuses folders that hold nothing of a bundle, before they are walked.
func checkFolder(p, where string) error {
	if top, _, _ := strings.Cut(p, "/"); top != "lib" && top != "tests" {
		return fmt.Errorf("%s does not belong to a function; modules go to lib/, test cases to tests/", where)
	}
	return nil
}

func readFile(root *os.Root, p, where string) ([]byte, error) {
	info, err := root.Stat(filepath.FromSlash(p)) // follows links, not out of the folder
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; links may not lead out of the function's folder: copy the file into it", where, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no regular file", where)
	}
	f, err := root.Open(filepath.FromSlash(p))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", where, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", where, err)
	}
	return data, nil
}

// FromFiles makes a bundle of files by slash path, as they come with a request. name is the function's name if function.yaml gives none.
// The result shares the contents with files.
func FromFiles(files map[string][]byte, name string) (*functions.Bundle, error) {
	kept := map[string][]byte{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		clean, err := cleanPath(p)
		if err != nil {
			return nil, err
		}
		if _, twice := kept[clean]; twice {
			return nil, fmt.Errorf("%s is there twice", clean)
		}
		if !ignored(clean) {
			kept[clean] = files[p]
		}
	}
	label := name
	if label == "" {
		label = "function"
	}
	return build(kept, name, func(p string) string { return label + "/" + p })
}

// cleanPath refuses what is not a plain relative path; a bundle is written to disk again somewhere.
func cleanPath(p string) (string, error) {
	bad := p == "" || len(p) > maxPath || !utf8.ValidString(p) || strings.ContainsAny(p, `\:`) || strings.HasPrefix(p, "/") ||
		strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) || slices.Contains(strings.Split(p, "/"), "..")
	clean := path.Clean(p)
	if bad || clean == "." {
		return "", fmt.Errorf("%q is no path within a function; write one such as lib/average.lua", p[:min(len(p), maxPath)])
	}
	return clean, nil
}

// ignored says whether a path is what editors, tools and people leave beside a function.
func ignored(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, "~") || (strings.HasPrefix(part, "#") && strings.HasSuffix(part, "#")) {
			return true
		}
	}
	switch strings.ToLower(path.Ext(p)) {
	case ".swp", ".swo", ".bak", ".orig", ".rej", ".tmp", ".md":
		return true
	}
	base := path.Base(p)
	return base == "4913" || base == "LICENSE" || base == "README" // 4913: vim tries whether it may write
}

// build checks the files and puts the bundle together; where names a file in errors.
func build(files map[string][]byte, name string, where func(string) string) (*functions.Bundle, error) {
	var errs []error
	total := 0
	for _, p := range slices.Sorted(maps.Keys(files)) {
		total += len(files[p])
		if err := checkFile(p, files[p]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where(p), err))
		}
	}
	if total > MaxTotal || len(files) > MaxFiles {
		errs = append(errs, tooLarge(where("")))
	}
	if _, ok := files["main.lua"]; !ok {
		errs = append(errs, fmt.Errorf("%s: %s", where(""), mainHint))
	}
	yaml, ok := files["function.yaml"]
	if !ok {
		errs = append(errs, fmt.Errorf(`%s: function.yaml is missing; it says what triggers the function: "triggers: [{mqtt: a/topic}]"`, where("")))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	spec, err := functions.ParseSpec(where("function.yaml"), yaml, name)
	if err != nil {
		return nil, err
	}
	return &functions.Bundle{Spec: spec, Files: files, Digest: Digest(files)}, nil
}

func checkFile(p string, data []byte) error {
	lua := path.Ext(p) == ".lua"
	switch {
	case len(p) > maxPath:
		return fmt.Errorf("the path is longer than %d bytes", maxPath)
	case len(data) > MaxFile:
		return fmt.Errorf("%s; move a part of it to lib/", functions.OverLimit("source", fmt.Sprintf("more than %d bytes", MaxFile), strconv.Itoa(MaxFile)))
	case lua && (!utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0):
		return errors.New("the file is not text in UTF-8; write bytes as \\ddd in strings")
	case p == "function.yaml" || p == "main.lua" || strings.HasPrefix(p, "tests/") || (strings.HasPrefix(p, "lib/") && lua):
		return nil
	case p == "function.yml":
		return errors.New("call it function.yaml")
	case lua:
		return errors.New("modules go to lib/")
	}
	return errors.New("does not belong to a function; there are function.yaml, main.lua, lib/*.lua and tests/")
}

// Digest returns the identity of a revision: hex SHA-256 over the sorted paths and contents, each with its length.
func Digest(files map[string][]byte) string {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		part([]byte(p))
		part(files[p])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Found is what LoadAll made of one folder: a bundle, or the reason why there is none.
type Found struct {
	Folder string // its name, without the directory
	Bundle *functions.Bundle
	Err    error
}

// LoadAll reads every folder of dir, in the order of their names. A folder that is wrong does not stop the others; nor does a
// second function of the same name, which is that folder's error. The error of LoadAll is about dir itself.
func LoadAll(dir string) ([]Found, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the directory of functions: %w", err)
	}
	var all []Found
	owner := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		info, err := os.Stat(filepath.Join(dir, name)) // a folder may be a link
		if ignored(name) || (err == nil && !info.IsDir()) {
			continue
		}
		f := Found{Folder: name, Err: err}
		if err == nil {
			f.Bundle, f.Err = Load(filepath.Join(dir, name))
		}
		if f.Bundle != nil {
			if first, twice := owner[f.Bundle.Spec.Name]; twice {
				f.Err = fmt.Errorf("%s: function %s is in %s already; give one of them another name", filepath.Join(dir, name), f.Bundle.Spec.Name, filepath.Join(dir, first))
				f.Bundle = nil
			} else {
				owner[f.Bundle.Spec.Name] = name
			}
		}
		all = append(all, f)
	}
	return all, nil
}
