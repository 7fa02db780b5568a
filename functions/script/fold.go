package script

import "github.com/yuin/gopher-lua/ast"

// The compiler shortens jumps that lead to jumps, but reads those behind it, which it has finished, as if it had not: a loop whose body begins with a
// jump goes on anywhere. Constants in conditions are what makes such beginnings, so they are folded; before a break or a goto
// goes something that does nothing.

// foldExpr puts an expression without constant operands of and, or and not in place of one with.
func foldExpr(e ast.Expr) ast.Expr {
	switch e := e.(type) {
	case *ast.LogicalOpExpr:
		is, ok := truth(e.Lhs)
		if !ok {
			return e
		}
		if is == (e.Operator == "or") {
			return e.Lhs
		}
		single(e.Rhs)
		return e.Rhs
	case *ast.UnaryNotOpExpr:
		if is, ok := truth(e.Expr); ok {
			return constant(!is, e)
		}
	}
	return e
}

// truth says whether an expression is a constant, and whether a condition takes it as true.
func truth(e ast.Expr) (is, ok bool) {
	switch e.(type) {
	case *ast.NilExpr, *ast.FalseExpr:
		return false, true
	case *ast.TrueExpr, *ast.NumberExpr, *ast.StringExpr:
		return true, true
	}
	return false, false
}

func constant(is bool, where ast.PositionHolder) ast.Expr {
	var e ast.Expr = &ast.FalseExpr{}
	if is {
		e = &ast.TrueExpr{}
	}
	at(e, where)
	return e
}

// foldStmt puts what is left of a statement whose condition is a constant in its place.
func foldStmt(s ast.Stmt) ast.Stmt {
	switch s := s.(type) {
	case *ast.IfStmt:
		if is, ok := truth(s.Condition); ok {
			if is {
				return doBlock(s.Then, s)
			}
			return doBlock(s.Else, s)
		}
	case *ast.WhileStmt:
		if is, ok := truth(s.Condition); ok && !is {
			return doBlock(nil, s)
		}
		s.Stmts = padded(s.Stmts, s)
	case *ast.RepeatStmt:
		s.Stmts = padded(s.Stmts, s)
	case *ast.GenericForStmt:
		s.Stmts = padded(s.Stmts, s)
	}
	return s
}

// padded is the body of a loop that does not begin with a jump.
func padded(stmts []ast.Stmt, where ast.PositionHolder) []ast.Stmt {
	if !beginsWithJump(stmts) {
		return stmts
	}
	return append([]ast.Stmt{nothing(where)}, stmts...)
}

// nothing does nothing, in one instruction that is no jump.
func nothing(where ast.PositionHolder) ast.Stmt {
	local := &ast.LocalAssignStmt{Names: []string{"(nothing)"}}
	at(local, where)
	return doBlock([]ast.Stmt{local}, where)
}

func doBlock(stmts []ast.Stmt, where ast.PositionHolder) ast.Stmt {
	block := &ast.DoBlockStmt{Stmts: stmts}
	at(block, where)
	return block
}

// beginsWithJump says whether the first instruction of statements is a jump, or may be.
func beginsWithJump(stmts []ast.Stmt) bool {
	for _, s := range stmts {
		switch s := s.(type) {
		case *ast.BreakStmt, *ast.GotoStmt:
			return true
		case *ast.LabelStmt:
			continue
		case *ast.DoBlockStmt:
			if len(s.Stmts) == 0 {
				continue
			}
			return beginsWithJump(s.Stmts)
		case *ast.RepeatStmt:
			return len(s.Stmts) == 0 || beginsWithJump(s.Stmts)
		case *ast.WhileStmt:
			_, always := truth(s.Condition)
			return always && beginsWithJump(s.Stmts)
		default:
			return false
		}
	}
	return false
}

// padLabels goes between each label and a jump that follows it: a goto could lead back there.
func padLabels(stmts []ast.Stmt) []ast.Stmt {
	for i := len(stmts) - 2; i >= 0; i-- {
		if label, ok := stmts[i].(*ast.LabelStmt); ok && beginsWithJump(stmts[i+1:]) {
			rest := append([]ast.Stmt{nothing(label)}, stmts[i+1:]...)
			stmts = append(stmts[:i+1:i+1], rest...)
		}
	}
	return stmts
}
