// Package luals has what lua-language-server needs to complete and check functions in an editor: definitions of all that a function can use, and
// a configuration that points to them. A test of package script compares the definitions with what there is.
package luals

import _ "embed"

//go:embed perigee.lua
var definitions string

//go:embed luarc.json
var config string

// Files are what goes beside a function's own files. Their names begin with a dot, so that they are no part of the function.
func Files() map[string][]byte {
	return map[string][]byte{".luarc.json": []byte(config), ".perigee/perigee.lua": []byte(definitions)}
}
