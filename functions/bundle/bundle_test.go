package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const spec = "triggers: [{every: 1m}]\n"

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for p, text := range files {
		p = filepath.Join(dir, p)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	return dir
}

func good() map[string]string {
	return map[string]string{"function.yaml": spec, "main.lua": "return function() end", "lib/a/b.lua": "return {}", "tests/x.yaml": "[]"}
}

func TestLoad(t *testing.T) {
	dir := write(t, filepath.Join(t.TempDir(), "overheat"), good())
	write(t, dir, map[string]string{".git/x": "x", "main.lua~": "x", "README.md": "x", ".main.lua.swp": "x", "lib/.#a.lua": "x", "4913": "", "#main.lua#": ""})
	b, err := Load(dir)
	require.NoError(t, err)
	require.Equal(t, "overheat", b.Spec.Name)
	require.Len(t, b.Files, 4)
	require.Equal(t, "return {}", string(b.Files["lib/a/b.lua"]))
	require.Len(t, b.Digest, 64)

	again, err := FromFiles(b.Files, "overheat")
	require.NoError(t, err)
	require.Equal(t, b.Digest, again.Digest)

	t.Chdir(dir)
	here, err := Load(".")
	require.NoError(t, err)
	require.Equal(t, "overheat", here.Spec.Name)
}

func TestDigestTellsBundlesApart(t *testing.T) {
	seen := map[string]bool{}
	for _, files := range []map[string][]byte{
		{}, {"a": nil}, {"a": []byte("b")}, {"ab": nil}, {"a": []byte("bc")}, {"ab": []byte("c")}, {"a": nil, "b": nil}, {"a": []byte("\x00"), "b": nil},
	} {
		d := Digest(files)
		require.False(t, seen[d])
		seen[d] = true
	}
}

func TestLoadErrors(t *testing.T) {
	many := map[string]string{"function.yaml": spec, "main.lua": "x"}
	for i := range MaxFiles {
		many[fmt.Sprintf("lib/m%d.lua", i)] = "x"
	}
	big := map[string]string{"function.yaml": spec, "main.lua": "x"}
	for i := range 9 {
		big[fmt.Sprintf("lib/m%d.lua", i)] = strings.Repeat(" ", MaxFile)
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no main":  {map[string]string{"function.yaml": spec}, `main.lua is missing; it returns the function`},
		"no yaml":  {map[string]string{"main.lua": "x"}, `function.yaml is missing`},
		"yml":      {map[string]string{"function.yml": spec, "main.lua": "x"}, `function.yml: call it function.yaml`},
		"module":   {map[string]string{"function.yaml": spec, "main.lua": "x", "helper.lua": "x"}, `helper.lua: modules go to lib/`},
		"other":    {map[string]string{"function.yaml": spec, "main.lua": "x", "data.csv": "x"}, `data.csv: does not belong to a function`},
		"lib text": {map[string]string{"function.yaml": spec, "main.lua": "x", "lib/data.csv": "x"}, `does not belong to a function`},
		"folder":   {map[string]string{"function.yaml": spec, "main.lua": "x", "src/a.lua": "x"}, `src does not belong to a function; modules go to lib/`},
		"large":    {map[string]string{"function.yaml": spec, "main.lua": strings.Repeat("x", MaxFile+1)}, `main.lua: limits.source: more than 65536 bytes, 65536 are allowed; move a part of it to lib/`},
		"bytes":    {map[string]string{"function.yaml": spec, "main.lua": "\x1bLua\x00"}, `main.lua: the file is not text`},
		"yaml":     {map[string]string{"function.yaml": "trigers: 1", "main.lua": "x"}, `function.yaml:1:1: unknown key "trigers"; did you mean "triggers"?`},
		"many":     {many, "at most 64 files and 512 KiB"},
		"big":      {big, "at most 64 files and 512 KiB"},
		"Bad Name": {good(), "is no name for a function"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, filepath.Join(t.TempDir(), name), c.files)
			_, err := Load(dir)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, dir, "the error names the place")
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestLinks(t *testing.T) {
	tmp := t.TempDir()
	write(t, tmp, map[string]string{"secret": "password"})
	dir := write(t, filepath.Join(tmp, "f"), good())
	require.NoError(t, os.Symlink("a/b.lua", filepath.Join(dir, "lib/inside.lua")))
	b, err := Load(dir)
	require.NoError(t, err)
	require.Equal(t, "return {}", string(b.Files["lib/inside.lua"]))

	for _, target := range []string{"../../secret", filepath.Join(tmp, "secret"), "nowhere", "a"} {
		link := filepath.Join(dir, "lib", "out.lua")
		require.NoError(t, os.Symlink(target, link))
		_, err = Load(dir)
		require.ErrorContains(t, err, "out.lua", target)
		require.NotContains(t, err.Error(), "password")
		require.NoError(t, os.Remove(link))
	}

	// The folder itself may be a link.
	require.NoError(t, os.Symlink(dir, filepath.Join(tmp, "g")))
	b, err = Load(filepath.Join(tmp, "g"))
	require.NoError(t, err)
	require.Equal(t, "g", b.Spec.Name)
}

func TestFromFiles(t *testing.T) {
	base := func() map[string][]byte {
		return map[string][]byte{"function.yaml": []byte(spec), "main.lua": []byte("x")}
	}
	files := base()
	files["lib/./a.lua"] = []byte("x")
	files[".DS_Store"] = []byte("x")
	b, err := FromFiles(files, "f")
	require.NoError(t, err)
	require.Contains(t, b.Files, "lib/a.lua")
	require.Len(t, b.Files, 3)

	for _, p := range []string{"", ".", "/etc/passwd", "../x.lua", "lib/../../x", `lib\x.lua`, "C:x", "lib/\x00.lua", "lib/\xff.lua", "lib/a\n.lua", "lib/..", strings.Repeat("x", 300)} {
		files := base()
		files[p] = []byte("x")
		_, err := FromFiles(files, "f")
		require.Error(t, err, "%q", p)
		require.Less(t, len(err.Error()), 1000)
	}
	files = base()
	files["lib/a.lua"], files["lib//a.lua"] = nil, nil
	_, err = FromFiles(files, "f")
	require.ErrorContains(t, err, "lib/a.lua is there twice")

	_, err = FromFiles(map[string][]byte{"function.yaml": []byte("x: 1")}, "f")
	require.ErrorContains(t, err, "f/: main.lua is missing")
	_, err = FromFiles(base(), "")
	require.ErrorContains(t, err, "function/function.yaml:1:1: ")
}

func TestLoadAll(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), good())
	write(t, filepath.Join(dir, "b"), map[string]string{"main.lua": "x"})
	c := good()
	c["function.yaml"] = "name: a\n" + spec
	write(t, filepath.Join(dir, "c"), c)
	write(t, filepath.Join(dir, "d"), good())
	write(t, dir, map[string]string{".git/x": "x", "README.md": "x", "notes.txt": "x"})
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "e")))

	all, err := LoadAll(dir)
	require.NoError(t, err)
	var got []string
	for _, f := range all {
		require.Equal(t, f.Bundle == nil, f.Err != nil, f.Folder)
		got = append(got, fmt.Sprint(f.Folder, " ", f.Bundle != nil))
	}
	require.Equal(t, []string{"a true", "b false", "c false", "d true", "e false"}, got)
	require.ErrorContains(t, all[2].Err, "function a is in "+filepath.Join(dir, "a")+" already")

	_, err = LoadAll(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
