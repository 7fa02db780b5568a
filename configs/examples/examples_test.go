package examples

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/functions/script"
	"github.com/perigee-iot/perigee/functions/worker"
)

// TestMain makes the test's own binary the worker of a stage.
func TestMain(m *testing.M) {
	worker.MainIfWorker()
	m.Run()
}

// names are the folders that Files holds.
func names(t *testing.T) (list []string) {
	entries, err := fs.ReadDir(Files(), ".")
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// load reads an example out of what is embedded, as the gateway reads a folder.
func load(t *testing.T, name string) *functions.Bundle {
	files := map[string][]byte{}
	for _, f := range []string{"function.yaml", "main.lua"} {
		data, err := Files().ReadFile(name + "/" + f)
		require.NoError(t, err)
		files[f] = data
	}
	b, err := bundle.FromFiles(files, name)
	require.NoError(t, err)
	return b
}

// TestEveryExampleIsRight: each folder here is embedded, is a valid function that compiles, explains itself, and stands in the README.
func TestEveryExampleIsRight(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			require.Contains(t, names(t), e.Name(), "embedded")
		}
	}
	for _, name := range names(t) {
		b := load(t, name)
		require.Nil(t, script.New(script.Options{}).Load(b.Digest, b.Files), name)
		require.NotEmpty(t, b.Spec.Description, name)
		require.Contains(t, string(readme), "| ["+name+"]("+name+"/main.lua) |", "the README lists it")
	}
	for _, name := range []string{Overheat, Climate, Lamp, Health, Proof} {
		require.Contains(t, names(t), name)
	}
}

// TestEveryExamplePassesItsCases: each example brings cases, with messages in the form that real devices send.
func TestEveryExamplePassesItsCases(t *testing.T) {
	s, err := stage.Open(nil)
	require.NoError(t, err)
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range names(t) {
		b, err := bundle.Load(name)
		require.NoError(t, err)
		list, err := cases.Load(b, func(p string) string { return filepath.Join(name, p) })
		require.NoError(t, err)
		require.NotEmpty(t, list, "%s has no cases", name)
		for _, c := range list {
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				for _, f := range s.Run(ctx, b, c).Failures {
					t.Errorf("%s:%d: %s", c.File, f.Line, f.Text())
				}
			})
		}
	}
}
