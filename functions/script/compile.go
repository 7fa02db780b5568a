package script

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"

	"github.com/perigee-iot/perigee/functions"
)

// maxSource is the largest Lua file. The parser needs some hundred times the memory of its input at worst.
const maxSource = functions.MaxSource

// program is a compiled bundle. Nothing in it changes after it was made, so that runs share it.
type program struct {
	digest  string
	main    *lua.FunctionProto
	modules map[string]*lua.FunctionProto // by the name that require takes: "util" for lib/util.lua
	globals []global                      // in order of their names
	event   global                        // what of the two arguments can be reached
	ctx     global
}

// global is a global name that occurs in a bundle.
type global struct {
	name string
	all  bool     // it stands alone, and all that it names can be reached
	some []string // otherwise these fields of it, in order
}

// uses says whether a field can be reached.
func (g global) uses(field string) bool { return g.all || slices.Contains(g.some, field) }

// compileBundle compiles every Lua file that runs: main.lua and what is below lib/.
func compileBundle(files map[string][]byte) (*program, *functions.Fault) {
	if files["main.lua"] == nil {
		return nil, &functions.Fault{Kind: functions.FaultError, Message: "the bundle has no main.lua",
			Hint: "a function's code is in main.lua, beside function.yaml"}
	}
	var libs []string
	for name := range files {
		if name != "main.lua" && strings.HasPrefix(name, "lib/") && strings.HasSuffix(name, ".lua") {
			libs = append(libs, name)
		}
	}
	slices.Sort(libs)
	p := &program{modules: map[string]*lua.FunctionProto{}}
	used := names{}
	var problems []string
	var handler *ast.FunctionExpr
	for _, name := range append([]string{"main.lua"}, libs...) {
		file, err := compileFile(name, files[name], used)
		switch {
		case err != nil:
			problems = append(problems, err.Error())
		case name == "main.lua":
			p.main, handler = file.proto, file.returns
		default:
			p.modules[moduleName(name)] = file.proto
		}
	}
	if problems != nil {
		fault := &functions.Fault{Kind: functions.FaultError, Message: capped(problems[0], maxMessage)}
		fault.Traceback = append(fault.Traceback, problems[1:min(len(problems), maxTraceback+1)]...)
		return nil, fault
	}
	p.globals = used.globals()
	p.event, p.ctx = used.argument(handler, 0), used.argument(handler, 1)
	return p, nil
}

// argument is what can be reached of the n-th argument of the function that main.lua returns. Where it names a parameter, only what occurs behind
// that name anywhere in the bundle can; if it is not written there as function(event, ctx), all of it.
func (n names) argument(f *ast.FunctionExpr, i int) global {
	if f == nil || f.ParList.HasVargs {
		return global{all: true}
	}
	if i >= len(f.ParList.Names) {
		return global{}
	}
	name := f.ParList.Names[i]
	if slices.Index(f.ParList.Names, name) != i || slices.Contains(f.ParList.Names[i+1:], name) {
		return global{name: name, all: true}
	}
	used := n.of(name)
	return global{name: name, all: used.all, some: slices.Sorted(maps.Keys(used.some))}
}

func (n names) globals() []global {
	var out []global
	for _, name := range slices.Sorted(maps.Keys(n)) {
		g := global{name: name, all: n[name].all}
		if !g.all {
			g.some = slices.Sorted(maps.Keys(n[name].some))
		}
		out = append(out, g)
	}
	return out
}

// moduleName is what require takes for a file below lib/: "a.b" for lib/a/b.lua.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(file, "lib/"), ".lua"), "/", ".")
}

// compiledFile is a file's code, and the function that it returns at its end, if that is written there.
type compiledFile struct {
	proto   *lua.FunctionProto
	returns *ast.FunctionExpr
}

// compileFile compiles one file; its error is one line that starts with file:line.
func compileFile(file string, source []byte, used names) (out compiledFile, err error) {
	if len(source) > maxSource {
		return out, functions.OverSource(file, len(source))
	}
	if i := bytes.IndexByte(source, 0x1b); i == 0 {
		return out, fmt.Errorf("%s:1: compiled Lua is not accepted, only source", file)
	}
	defer func() { // the parser and the compiler report some mistakes with a panic
		if v := recover(); v != nil {
			err = fmt.Errorf("%s:1: cannot be compiled: %s", file, capped(fmt.Sprint(v), 200))
		}
	}()
	source = withoutShebang(source)
	chunk, err := parse.Parse(bytes.NewReader(source), file)
	if err != nil {
		return out, syntaxError(file, source, err)
	}
	if chunk == nil {
		chunk = []ast.Stmt{}
	}
	chunk, err = rewrite(file, chunk, used)
	if err != nil {
		return out, err
	}
	if n := len(chunk); n > 0 {
		if last, ok := chunk[n-1].(*ast.ReturnStmt); ok && len(last.Exprs) > 0 {
			out.returns, _ = last.Exprs[0].(*ast.FunctionExpr)
		}
	}
	out.proto, err = lua.Compile(chunk, file)
	if err != nil {
		return out, compileError(file, err)
	}
	if err := mendConstructors(out.proto); err != nil {
		return out, fmt.Errorf("%s:1: %w", file, err)
	}
	out.proto.IsVarArg &^= lua.VarArgNeedsArg // a table of the file's own arguments, which nothing can name
	return out, nil
}

// withoutShebang blanks a first line that starts with #, as reference Lua does, and drops a byte order mark.
func withoutShebang(source []byte) []byte {
	source = bytes.TrimPrefix(source, []byte("\xef\xbb\xbf"))
	if len(source) == 0 || source[0] != '#' {
		return source
	}
	i := bytes.IndexByte(source, '\n')
	if i < 0 {
		return nil
	}
	return source[i:]
}

// syntaxError says in one line what the parser did not understand.
func syntaxError(file string, source []byte, err error) error {
	var perr *parse.Error
	if !errors.As(err, &perr) {
		return fmt.Errorf("%s:1: %s", file, capped(oneLine(err.Error()), 200))
	}
	what := perr.Message
	if i := strings.Index(what, "\n"); i >= 0 {
		what = what[:i]
	}
	what = strings.TrimSpace(strings.TrimPrefix(what, "syntax error:"))
	if perr.Pos.Line < 0 {
		last := bytes.Count(bytes.TrimRight(source, " \t\r\n"), []byte("\n")) + 1
		if strings.HasPrefix(what, "unterminated") {
			return fmt.Errorf("%s:%d: %s at the end of the file", file, last, what)
		}
		if open, line := unclosed(file, source); open != "" {
			return fmt.Errorf("%s:%d: the file ends, but %s of line %d is not closed", file, last, open, line)
		}
		return fmt.Errorf("%s:%d: the file ends in the middle of a statement", file, last)
	}
	switch {
	case perr.Token == "":
		return fmt.Errorf("%s:%d: %s", file, perr.Pos.Line, what)
	case what == "" || what == "syntax error" || what == "parse error":
		return fmt.Errorf("%s:%d: syntax error near '%s'", file, perr.Pos.Line, capped(oneLine(perr.Token), 40))
	default:
		return fmt.Errorf("%s:%d: %s near '%s'", file, perr.Pos.Line, strings.ToLower(what[:1])+what[1:], capped(oneLine(perr.Token), 40))
	}
}

// unclosed finds the innermost block or bracket that is open at the end of the file, for the message.
func unclosed(file string, source []byte) (what string, line int) {
	type opener struct {
		token string
		line  int
	}
	var open []opener
	pop := func() {
		if len(open) > 0 {
			open = open[:len(open)-1]
		}
	}
	lexer := &parse.Lexer{}
	scanner := parse.NewScanner(bytes.NewReader(source), file)
	for {
		token, err := scanner.Scan(lexer)
		if err != nil || token.Type < 0 {
			break
		}
		if token.Type == parse.TString {
			continue
		}
		switch token.Str {
		case "function", "if", "do", "repeat", "(", "{", "[":
			open = append(open, opener{token.Str, token.Pos.Line})
		case "end", "until", ")", "}", "]":
			pop()
		}
	}
	if len(open) == 0 {
		return "", 0
	}
	last := open[len(open)-1]
	return "'" + last.token + "'", last.line
}

var compileErrorForm = regexp.MustCompile(`^compile error near line\((-?\d+)\) [^:]*: (.*)$`)

// compileError puts the compiler's message into the form of all others.
func compileError(file string, err error) error {
	if m := compileErrorForm.FindStringSubmatch(oneLine(err.Error())); m != nil {
		line, what := m[1], m[2]
		if line == "0" || line[0] == '-' {
			line = "1"
		}
		if strings.Contains(what, "too many local variables") {
			what = "a function has too many local variables, or too many values in one statement (200 together)"
		}
		return fmt.Errorf("%s:%s: %s", file, line, capped(what, 200))
	}
	return fmt.Errorf("%s:1: %s", file, capped(oneLine(err.Error()), 200))
}
