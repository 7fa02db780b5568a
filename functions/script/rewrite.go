package script

import (
	"fmt"
	"strconv"

	"github.com/yuin/gopher-lua/ast"

	"github.com/perigee-iot/perigee/functions"
)

// maxNesting bounds the depth of a syntax tree. The compiler recurses over it, and Go ends the whole process when a stack
// outgrows its limit. Reference Lua stops at 200 levels, but does not count every operator as one.
const maxNesting = 1000

// rewriter walks a syntax tree once, before it is compiled, and changes it in place.
type rewriter struct {
	file   string
	depth  int
	names  names
	yields map[string]bool // names that stand for coroutine.yield
}

// names are the identifiers that occur in a bundle; those that are locals do no harm. For each there are the fields that follow it, as in
// state.get: as long as a name occurs in no other way, nothing else of what it names can be reached.
type names map[string]*fields

// fields are what of a table can be reached.
type fields struct {
	all  bool
	some map[string]bool
}

func (n names) of(name string) *fields {
	f := n[name]
	if f == nil {
		f = &fields{some: map[string]bool{}}
		n[name] = f
	}
	return f
}

// tooDeep is what the walk panics with when the nesting has no end.
type tooDeep struct{ line int }

// rewrite mends the tree of one file and adds what it uses to the names.
func rewrite(file string, chunk []ast.Stmt, used names) (out []ast.Stmt, err error) {
	defer func() {
		if v := recover(); v != nil {
			deep, ok := v.(tooDeep)
			if !ok {
				panic(v)
			}
			err = fmt.Errorf("%s:%d: %s", file, deep.line,
				functions.OverLimit("source", fmt.Sprintf("nested more than %d levels deep", maxNesting), strconv.Itoa(maxNesting)))
		}
	}()
	w := &rewriter{file: file, names: used, yields: map[string]bool{"yield": true}}
	return w.block(chunk), nil
}

func (w *rewriter) enter(line int) {
	w.depth++
	if w.depth > maxNesting {
		panic(tooDeep{line})
	}
}

func (w *rewriter) leave() { w.depth-- }

func (w *rewriter) block(stmts []ast.Stmt) []ast.Stmt {
	for i, s := range stmts {
		w.stmt(s)
		s = foldStmt(s)
		stmts[i] = s
		switch s := s.(type) {
		case *ast.AssignStmt:
			if len(s.Lhs) > 1 || len(s.Rhs) > 1 {
				stmts[i] = inSteps(s)
			}
		case *ast.GenericForStmt:
			if len(s.Exprs) != 1 || !isMany(s.Exprs[0]) {
				stmts[i] = withThree(s)
			}
		}
	}
	return padLabels(stmts)
}

// isMany says whether an expression can have more than one value.
func isMany(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.FuncCallExpr:
		return !e.AdjustRet
	case *ast.Comma3Expr:
		return !e.AdjustRet
	}
	return false
}

// single makes one value of a call or of "...".
func single(e ast.Expr) {
	switch e := e.(type) {
	case *ast.FuncCallExpr:
		e.AdjustRet = true
	case *ast.Comma3Expr:
		e.AdjustRet = true
	}
}

// withThree gives a loop its three values: the compiler leaves those that are not written, as in "for k, v in next, t", to whatever was in
// their registers.
//
//	do local (f), (s), (c) = next, t for k, v in (f), (s), (c) do ... end end
func withThree(s *ast.GenericForStmt) ast.Stmt {
	values := &ast.LocalAssignStmt{Names: []string{"(f)", "(s)", "(c)"}, Exprs: s.Exprs}
	at(values, s)
	s.Exprs = nil
	for _, name := range values.Names {
		s.Exprs = append(s.Exprs, ident(name, s))
	}
	block := &ast.DoBlockStmt{Stmts: []ast.Stmt{values, s}}
	at(block, s)
	return block
}

func (w *rewriter) stmt(s ast.Stmt) {
	w.enter(s.Line())
	defer w.leave()
	switch s := s.(type) {
	case *ast.AssignStmt:
		w.exprs(s.Lhs)
		w.exprs(s.Rhs)
		for i := range min(len(s.Lhs), len(s.Rhs)) {
			if w.isYield(s.Rhs[i]) {
				w.yields[lastName(s.Lhs[i])] = true
			}
		}
	case *ast.LocalAssignStmt:
		w.exprs(s.Exprs)
		for i := range min(len(s.Names), len(s.Exprs)) {
			if w.isYield(s.Exprs[i]) {
				w.yields[s.Names[i]] = true
			}
		}
	case *ast.FuncCallStmt:
		w.expr(&s.Expr)
	case *ast.DoBlockStmt:
		s.Stmts = w.block(s.Stmts)
	case *ast.WhileStmt:
		w.expr(&s.Condition)
		s.Stmts = w.block(s.Stmts)
	case *ast.RepeatStmt:
		s.Stmts = w.block(s.Stmts)
		w.expr(&s.Condition)
	case *ast.IfStmt:
		w.expr(&s.Condition)
		s.Then, s.Else = w.block(s.Then), w.block(s.Else)
	case *ast.NumberForStmt:
		w.expr(&s.Init)
		w.expr(&s.Limit)
		w.expr(&s.Step)
		s.Stmts = w.block(s.Stmts)
	case *ast.GenericForStmt:
		w.exprs(s.Exprs)
		s.Stmts = w.block(s.Stmts)
	case *ast.FuncDefStmt:
		w.expr(&s.Name.Func)
		w.expr(&s.Name.Receiver)
		s.Func.Stmts = w.block(s.Func.Stmts)
	case *ast.ReturnStmt:
		w.exprs(s.Exprs)
		if len(s.Exprs) == 1 {
			s.Exprs[0] = w.noTail(s.Exprs[0])
		}
	}
}

// noTail makes (all)(yield(x)) of yield(x): the VM cannot resume what yielded in place of its caller.
func (w *rewriter) noTail(e ast.Expr) ast.Expr {
	call, ok := e.(*ast.FuncCallExpr)
	if !ok || call.AdjustRet || !w.isYield(call.Func) {
		return e
	}
	w.names.of(allName).all = true
	outer := &ast.FuncCallExpr{Func: ident(allName, call), Args: []ast.Expr{call}}
	at(outer, call)
	return outer
}

// isYield says whether an expression looks like coroutine.yield, or like a name that it was assigned to.
func (w *rewriter) isYield(e ast.Expr) bool { return w.yields[lastName(e)] }

// lastName is what a variable or a field is called.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.IdentExpr:
		return e.Value
	case *ast.AttrGetExpr:
		if key, ok := e.Key.(*ast.StringExpr); ok {
			return key.Value
		}
	}
	return ""
}

func (w *rewriter) exprs(list []ast.Expr) {
	for i := range list {
		w.expr(&list[i])
	}
}

// expr walks an expression and puts another in its place where the compiler's own way will not do.
func (w *rewriter) expr(at *ast.Expr) {
	if *at == nil {
		return
	}
	w.enter((*at).Line())
	defer w.leave()
	if chain, ok := (*at).(*ast.StringConcatOpExpr); ok {
		*at = w.concat(chain)
		return
	}
	w.parts(*at)
	*at = foldExpr(*at)
}

// parts walks what an expression is made of.
func (w *rewriter) parts(e ast.Expr) {
	switch e := e.(type) {
	case *ast.NumberExpr:
		e.Value = numeral(e.Value)
	case *ast.IdentExpr:
		w.names.of(e.Value).all = true
	case *ast.AttrGetExpr:
		if table, ok := e.Object.(*ast.IdentExpr); ok {
			if field, ok := e.Key.(*ast.StringExpr); ok {
				w.names.of(table.Value).some[field.Value] = true
				return
			}
		}
		w.expr(&e.Object)
		w.expr(&e.Key)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			w.expr(&f.Key)
			w.expr(&f.Value)
			if f.Key != nil {
				single(f.Value) // or the compiler takes one at the end for items
			}
		}
	case *ast.FuncCallExpr:
		w.expr(&e.Func)
		w.expr(&e.Receiver)
		w.exprs(e.Args)
	case *ast.LogicalOpExpr:
		w.expr(&e.Lhs)
		w.expr(&e.Rhs)
	case *ast.RelationalOpExpr:
		w.expr(&e.Lhs)
		w.expr(&e.Rhs)
	case *ast.ArithmeticOpExpr:
		w.expr(&e.Lhs)
		w.expr(&e.Rhs)
	case *ast.UnaryMinusOpExpr:
		w.expr(&e.Expr)
	case *ast.UnaryNotOpExpr:
		w.expr(&e.Expr)
	case *ast.UnaryLenOpExpr:
		w.expr(&e.Expr)
	case *ast.FunctionExpr:
		e.Stmts = w.block(e.Stmts)
	}
}

// allName is the global that returns its arguments. No script can write the name.
const allName = "(all)"

// concatName is the global that does what the operator .. does. No script can write the name.
const concatName = "(concat)"

// maxOperands is how many operands of .. one call takes: each needs a register, of which a function has 200.
const maxOperands = 50

// concat turns a chain of .. into a call, a .. b .. c into (concat)(a, b, c): the VM joins all of a chain within one
// instruction, whatever that takes, and writes numbers in another way than tostring.
func (w *rewriter) concat(chain *ast.StringConcatOpExpr) ast.Expr {
	operands := []ast.Expr{chain.Lhs}
	rest := chain.Rhs
	for len(operands) < maxOperands-1 {
		next, ok := rest.(*ast.StringConcatOpExpr)
		if !ok {
			break
		}
		operands = append(operands, next.Lhs)
		rest = next.Rhs
	}
	operands = append(operands, rest)
	w.exprs(operands)
	single(operands[len(operands)-1])
	call := &ast.FuncCallExpr{Func: ident(concatName, chain), Args: operands, AdjustRet: true}
	at(call, chain)
	return call
}

// numeral writes a number so that the compiler, which takes 010 for octal, reads it as Lua does. What is no number stays
// as it is, for the compiler to complain about.
func numeral(s string) string {
	n, ok := parseNumber(s)
	if !ok {
		return s
	}
	return strconv.FormatFloat(n, 'g', -1, 64)
}

// inSteps turns an assignment to several targets into a block that does one thing after another:
//
//	a, t[i], f().x = g(), ...
//
// becomes, with names that no script can write,
//
//	do
//	  local (o2) = t; local (k2) = i; local (o3) = f()
//	  local (v1), (v2), (v3) = g(), ...
//	  (o3).x = (v3); (o2)[(k2)] = (v2); a = (v1)
//	end
//
// The order of evaluation and of assignment, last target first, is that of the reference implementation.
func inSteps(s *ast.AssignStmt) ast.Stmt {
	b := &stepBuilder{}
	targets := make([]ast.Expr, len(s.Lhs))
	for i, t := range s.Lhs {
		targets[i] = b.target(i, t)
	}
	values := &ast.LocalAssignStmt{Exprs: s.Rhs}
	for i := range s.Lhs {
		values.Names = append(values.Names, fmt.Sprintf("(v%d)", i+1))
	}
	at(values, s)
	b.stmts = append(b.stmts, values)
	for i := len(targets) - 1; i >= 0; i-- {
		assign := &ast.AssignStmt{Lhs: []ast.Expr{targets[i]}, Rhs: []ast.Expr{ident(values.Names[i], s.Lhs[i])}}
		at(assign, s)
		b.stmts = append(b.stmts, assign)
	}
	block := &ast.DoBlockStmt{Stmts: b.stmts}
	at(block, s)
	return block
}

type stepBuilder struct{ stmts []ast.Stmt }

// target returns what to assign to, with the parts that must be evaluated beforehand put into locals.
func (b *stepBuilder) target(i int, t ast.Expr) ast.Expr {
	get, ok := t.(*ast.AttrGetExpr)
	if !ok {
		return t
	}
	to := &ast.AttrGetExpr{
		Object: b.save(fmt.Sprintf("(o%d)", i+1), get.Object),
		Key:    b.save(fmt.Sprintf("(k%d)", i+1), get.Key),
	}
	at(to, get)
	return to
}

// save puts the value of e into a local of that name, unless it is a constant.
func (b *stepBuilder) save(name string, e ast.Expr) ast.Expr {
	switch e.(type) {
	case *ast.StringExpr, *ast.NumberExpr, *ast.TrueExpr, *ast.FalseExpr, *ast.NilExpr:
		return e
	}
	local := &ast.LocalAssignStmt{Names: []string{name}, Exprs: []ast.Expr{e}}
	at(local, e)
	b.stmts = append(b.stmts, local)
	return ident(name, e)
}

func ident(name string, where ast.PositionHolder) ast.Expr {
	e := &ast.IdentExpr{Value: name}
	at(e, where)
	return e
}

// at gives a new node the position of an old one, for error messages.
func at(node, old ast.PositionHolder) {
	node.SetLine(old.Line())
	node.SetLastLine(old.LastLine())
}
