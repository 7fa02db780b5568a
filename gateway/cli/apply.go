package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/gateway/api"
)

func applyCommand() *command {
	return &command{
		name: "apply", usage: "PATH…", brief: "deploy the functions in these folders", min: 1, max: -1,
		text: `Each PATH is a folder with function.yaml and main.lua. It returns when the revision is durable, active and its subscriptions are
acknowledged. The same content again changes nothing. Files among several PATHs are left out, so that examples/* works.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "check everything, change nothing"},
			&cli.BoolFlag{Name: "take", Usage: "take the name over from where the function came from before"},
		},
		examples: []string{"perigee functions apply overheat", "perigee functions apply configs/examples/* --dry-run"},
		run: func(c *call) error {
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			return c.each(folders(c.args), func(path string) error {
				req, err := readBundle(path)
				if err != nil {
					return err
				}
				req.Dry, req.Take = c.Bool("dry-run"), c.Bool("take")
				r, err := gw.Apply(c.ctx, req)
				if err != nil && strings.HasPrefix(err.Error(), "function "+req.Name) {
					return err // it says itself which it is about
				}
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				if c.json() {
					return c.out.jsonLine(r)
				}
				c.out.line("%s", applied(c.out, r, req.Dry))
				for _, w := range r.Warnings {
					c.out.line("  %s %s", c.out.warn("warning:"), safe(w, 0))
				}
				return nil
			})
		},
	}
}

// folders leaves the files out of several paths: a pattern of the shell finds them, too. If there are no others, they stay, to be refused.
func folders(paths []string) []string {
	var dirs []string
	for _, p := range paths {
		if info, err := os.Stat(p); err != nil || info.IsDir() {
			dirs = append(dirs, p)
		}
	}
	if len(dirs) == 0 {
		return paths
	}
	return dirs
}

// applied is one line about what apply did.
func applied(out *printer, r *api.ApplyResult, dry bool) string {
	s := r.Name + " "
	if dry && r.Action != "unchanged" {
		s += "would be "
	}
	s += r.Action + ": "
	if r.Previous != "" && r.Previous != r.Revision {
		s += short(r.Previous) + " → "
	}
	s += short(r.Revision) + ", " + out.state(r.State)
	return s + because(r.Reason)
}

// readBundle reads a function's folder. What is wrong with it is said with file and line before anything is sent.
func readBundle(dir string) (*api.ApplyRequest, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, api.Errorf(api.CodeNotFound, "there is no folder %s", dir)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, usagef("%s is a file", dir).withHint("give the folder that it is in")
	case !exists(filepath.Join(dir, "function.yaml")):
		return nil, noBundle(dir)
	}
	b, err := bundle.Load(dir)
	if err != nil {
		return nil, err
	}
	return &api.ApplyRequest{Name: b.Spec.Name, Files: b.Files}, nil
}

func noBundle(dir string) error {
	err := usagef("%s has no function.yaml", dir)
	if below, _ := filepath.Glob(filepath.Join(dir, "*", "function.yaml")); len(below) > 0 {
		return err.withHint("the folders in it have: perigee functions apply %s", filepath.Join(dir, "*"))
	}
	return err.withHint("start a function with: perigee new NAME")
}
