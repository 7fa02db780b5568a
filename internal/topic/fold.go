package topic

import (
	"cmp"
	"slices"
)

// Sub is one subscription: a filter and the QoS to ask for.
type Sub struct {
	Filter string
	QoS    byte
}

// Fold arranges filters into groups, each for a session of its own, so that no session gets a message twice: a filter that
// another one covers is left out, the coverer taking the higher QoS, and filters that overlap in part go to
// different groups. Most sets need one group. The result depends on the set alone, not on its order.
func Fold(subs []Sub) [][]Sub { return Refold(nil, subs) }

// Refold is Fold for a set that replaces another: filters stay in the group where prev had them if they can, so that a
// change moves no subscription between sessions without need. Groups in the middle may become empty.
func Refold(prev [][]Sub, subs []Sub) [][]Sub {
	kept := uncovered(subs)
	groups := make([][]Sub, len(prev))
	var rest []Sub
	for _, s := range kept {
		i := slices.IndexFunc(prev, func(g []Sub) bool {
			return slices.ContainsFunc(g, func(p Sub) bool { return p.Filter == s.Filter })
		})
		if i >= 0 && fits(groups[i], s) {
			groups[i] = append(groups[i], s)
		} else {
			rest = append(rest, s)
		}
	}
	for _, s := range rest {
		i := slices.IndexFunc(groups, func(g []Sub) bool { return fits(g, s) })
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], s)
	}
	for len(groups) > 0 && len(groups[len(groups)-1]) == 0 {
		groups = groups[:len(groups)-1]
	}
	for _, g := range groups {
		slices.SortFunc(g, func(a, b Sub) int { return cmp.Compare(a.Filter, b.Filter) })
	}
	return groups
}

// fits says whether s overlaps nothing of the group.
func fits(group []Sub, s Sub) bool {
	return !slices.ContainsFunc(group, func(g Sub) bool { return Overlaps(g.Filter, s.Filter) })
}

// uncovered returns the filters that no other one covers, sorted, with the highest QoS of what each covers.
func uncovered(subs []Sub) []Sub {
	subs = slices.Clone(subs)
	slices.SortFunc(subs, func(a, b Sub) int { return cmp.Compare(a.Filter, b.Filter) })
	var kept []Sub
	for _, s := range subs {
		covered := slices.ContainsFunc(kept, func(k Sub) bool { return Covers(k.Filter, s.Filter) })
		if !covered {
			kept = slices.DeleteFunc(kept, func(k Sub) bool { return Covers(s.Filter, k.Filter) })
			kept = append(kept, s)
		}
	}
	for i := range kept {
		for _, s := range subs {
			if Covers(kept[i].Filter, s.Filter) {
				kept[i].QoS = max(kept[i].QoS, s.QoS)
			}
		}
	}
	return kept
}
