package cli

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
)

func stateCommand() *command {
	which := func() []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "of this `KEY`"},
			&cli.BoolFlag{Name: "shared", Usage: "of what all keys share"},
		}
	}
	return &command{
		name: "state", brief: "what functions remember",
		sub: []*command{
			{
				name: "get", usage: "FUNCTION NAME", brief: "one value, as compact JSON and nothing else", min: 2, max: 2, flags: which(),
				text:     "--key may be left out where only one key has the name.",
				examples: []string{"perigee state get overheat hot --key cellar", "perigee state get meter total"},
				run:      getState,
			},
			{
				name: "set", usage: "FUNCTION NAME VALUE", brief: "set one value", min: 3, max: 3, flags: which(),
				text:     "VALUE is JSON, or - to read it from standard input. Without --key it is the state of a function that has no keys.",
				examples: []string{"perigee state set overheat hot false --key cellar", `perigee state set report text '"all is well"'`},
				run: func(c *call) error {
					ref, err := c.stateRef()
					if err != nil {
						return err
					}
					value := []byte(c.args[2])
					if c.args[2] == "-" {
						if value, err = c.payload("-"); err != nil {
							return err
						}
					}
					if !json.Valid(value) {
						return usagef("the value is not JSON: %.60s", value).withHint(`a text needs quotes: '"warm"'`)
					}
					gw, err := c.gateway()
					if err != nil {
						return err
					}
					return gw.SetState(c.ctx, ref, value)
				},
			},
			{
				name: "list", usage: "FUNCTION", brief: "all values of a function", min: 1, max: 1, flags: which(),
				examples: []string{"perigee state list overheat", "perigee state list overheat --key cellar --json"},
				run:      listState,
			},
			{
				name: "delete", usage: "FUNCTION [NAME]", brief: "delete one value, those of a key, or all", min: 1, max: 2,
				flags:    append(which(), &cli.BoolFlag{Name: "all", Usage: "everything that the function remembers"}),
				examples: []string{"perigee state delete overheat hot --key cellar", "perigee state delete overheat --key cellar", "perigee state delete overheat --all"},
				run:      deleteState,
			},
		},
	}
}

// stateRef is what arguments and flags name.
func (c *call) stateRef() (api.StateRef, error) {
	ref := api.StateRef{Function: c.args[0], Shared: c.Bool("shared")}
	if len(c.args) > 1 {
		ref.Name = c.args[1]
	}
	if c.IsSet("key") {
		if ref.Shared {
			return ref, usagef("--key and --shared exclude each other: shared state has no key")
		}
		key := c.String("key")
		ref.Key = &key
	}
	return ref, nil
}

// entries asks for what ref names. Without --shared, that is the state of keys.
func (c *call) entries(ref api.StateRef, sharedToo bool) ([]api.StateEntry, error) {
	gw, err := c.gateway()
	if err != nil {
		return nil, err
	}
	all, err := gw.State(c.ctx, ref)
	if err != nil {
		return nil, err
	}
	out := []api.StateEntry{}
	for _, e := range all {
		if e.Shared == ref.Shared || sharedToo {
			out = append(out, e)
		}
	}
	return out, nil
}

func getState(c *call) error {
	ref, err := c.stateRef()
	if err != nil {
		return err
	}
	found, err := c.entries(ref, false)
	if err != nil {
		return err
	}
	switch {
	case len(found) == 0:
		where := ""
		if ref.Key != nil {
			where = fmt.Sprintf(" for the key %q", *ref.Key)
		}
		return api.Errorf(api.CodeNotFound, "%s remembers no %q%s", ref.Function, ref.Name, where).WithHint("see: perigee state list %s", ref.Function)
	case len(found) > 1:
		keys := make([]string, 0, 5)
		for i, e := range found {
			if i == 5 {
				keys = append(keys, "…")
				break
			}
			keys = append(keys, "--key "+quoteArg(e.Key))
		}
		return usagef("%s remembers %q for %d keys", ref.Function, ref.Name, len(found)).withHint("say for which: %s", strings.Join(keys, ", "))
	}
	if c.json() {
		return c.out.json(found[0])
	}
	b, err := plainJSON(found[0].Value)
	if err != nil {
		return fmt.Errorf("the value is not JSON: %w", err)
	}
	c.out.line("%s", b)
	return nil
}

// quoteArg quotes what a shell would take apart.
func quoteArg(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func listState(c *call) error {
	ref, err := c.stateRef()
	if err != nil {
		return err
	}
	found, err := c.entries(ref, ref.Key == nil)
	if err != nil {
		return err
	}
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i], found[j]
		if a.Shared != b.Shared {
			return b.Shared
		}
		if a.Key != b.Key {
			return a.Key < b.Key
		}
		return a.Name < b.Name
	})
	if c.json() {
		return c.out.json(found)
	}
	if len(found) == 0 {
		c.out.line("%s remembers nothing", ref.Function)
		return nil
	}
	rows := [][]string{{"KEY", "NAME", "VALUE"}}
	for _, e := range found {
		key := safe(e.Key, 40)
		if e.Shared {
			key = c.out.dim("(shared)")
		}
		b, err := plainJSON(e.Value)
		if err != nil {
			b = e.Value
		}
		rows = append(rows, []string{key, safe(e.Name, 60), safe(string(b), 100)})
	}
	c.out.table(rows)
	return nil
}

func deleteState(c *call) error {
	ref, err := c.stateRef()
	if err != nil {
		return err
	}
	narrow := ref.Name != "" || ref.Key != nil || ref.Shared
	switch all := c.Bool("all"); {
	case all && narrow:
		return usagef("--all is everything: leave out NAME, --key and --shared")
	case !all && !narrow:
		return usagef("that would be everything that %s remembers", ref.Function).withHint("give NAME, --key or --shared, or say --all")
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	n, err := gw.DeleteState(c.ctx, ref)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.jsonLine(map[string]int{"deleted": n})
	}
	c.out.line("%s deleted", plural(int64(n), "value"))
	return nil
}
