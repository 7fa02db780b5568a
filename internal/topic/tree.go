package topic

import "slices"

// Tree holds values under filters and finds those whose filter matches a name, in time that depends on the levels of the name and on the
// wildcards in its way, not on the number of filters. The zero Tree is empty and ready. Any number of goroutines may
// call Match while none calls Add or Remove.
type Tree[T comparable] struct {
	root node[T]
	size int
}

type node[T comparable] struct {
	levels map[string]*node[T] // literal levels
	one    *node[T]            // "+"
	here   []T                 // filters that end here
	below  []T                 // filters that end with "#" here
}

func (n *node[T]) empty() bool {
	return len(n.levels) == 0 && n.one == nil && len(n.here) == 0 && len(n.below) == 0
}

// Len returns how many values the tree holds.
func (t *Tree[T]) Len() int { return t.size }

// Add puts a value under a valid filter. A pair that is there already is not added again.
func (t *Tree[T]) Add(filter string, value T) {
	n := &t.root
	for {
		level, rest, more := cut(filter)
		if level == "#" {
			t.insert(&n.below, value)
			return
		}
		next := n.child(level)
		if next == nil {
			next = &node[T]{}
			switch {
			case level == "+":
				n.one = next
			case n.levels == nil:
				n.levels = map[string]*node[T]{level: next}
			default:
				n.levels[level] = next
			}
		}
		if !more {
			t.insert(&next.here, value)
			return
		}
		n, filter = next, rest
	}
}

func (n *node[T]) child(level string) *node[T] {
	if level == "+" {
		return n.one
	}
	return n.levels[level]
}

func (t *Tree[T]) insert(list *[]T, value T) {
	if !slices.Contains(*list, value) {
		*list = append(*list, value)
		t.size++
	}
}

// Remove takes a value away from a filter and says whether it was there. Levels that nothing needs any more are freed.
func (t *Tree[T]) Remove(filter string, value T) bool {
	before := t.size
	t.remove(&t.root, filter, value)
	return t.size < before
}

func (t *Tree[T]) remove(n *node[T], filter string, value T) {
	level, rest, more := cut(filter)
	if level == "#" {
		t.take(&n.below, value)
		return
	}
	next := n.child(level)
	if next == nil {
		return
	}
	if more {
		t.remove(next, rest, value)
	} else {
		t.take(&next.here, value)
	}
	if next.empty() {
		if level == "+" {
			n.one = nil
		} else {
			delete(n.levels, level)
		}
	}
}

func (t *Tree[T]) take(list *[]T, value T) {
	if i := slices.Index(*list, value); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
		t.size--
	}
}

// Match calls fn for every value whose filter selects name; more than once for a value that is under several such
// filters. fn must not change the tree.
func (t *Tree[T]) Match(name string, fn func(T)) {
	t.root.match(name, true, System(name), fn)
}

// match finds what is under n; more says whether there are levels left, hidden whether the $-rule holds for the next one.
func (n *node[T]) match(name string, more, hidden bool, fn func(T)) {
	if !hidden {
		for _, v := range n.below {
			fn(v)
		}
	}
	if !more {
		for _, v := range n.here {
			fn(v)
		}
		return
	}
	level, rest, more := cut(name)
	if next := n.levels[level]; next != nil {
		next.match(rest, more, false, fn)
	}
	if n.one != nil && !hidden {
		n.one.match(rest, more, false, fn)
	}
}
