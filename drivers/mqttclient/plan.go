package mqttclient

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
)

// maxSessions is how many sessions for events a gateway has at a broker, at most.
const maxSessions = 4

// sub is one subscription of a session.
type sub struct {
	QoS byte `json:"qos"`
	// Cover says that nobody asked for this filter: it stands for several that did not fit beside each other.
	Cover bool `json:"cover,omitempty"`
}

// plan says which session subscribes what; slot 0 is the first session. What a broker does with a message that two
// filters of one session match is its own choice: it may send one copy or two. So the filters of a session never
// overlap, and a message that two sessions get is taken from the lower one only.
//
// That loses nothing as long as the lower one has been subscribed for longer, so a new filter always goes to a slot above
// those of the older filters that it overlaps, and an old filter stays where it is, over restarts too.
type plan [maxSessions]map[string]sub

// clone copies a plan.
func (p plan) clone() plan {
	for i := range p {
		p[i] = maps.Clone(p[i])
		if p[i] == nil {
			p[i] = map[string]sub{}
		}
	}
	return p
}

// filters returns a slot's filters in order.
func (p plan) filters(slot int) []string {
	return slices.Sorted(maps.Keys(p[slot]))
}

// next returns the plan for want, changed as little as possible, using at most slots sessions. The notes say what was folded
// into wider filters for want of sessions.
func (p plan) next(want []drivers.Filter, slots int) (plan, []string) {
	maximal := fold(want)
	n := plan{}.clone()
	for i, subs := range p {
		for f, s := range subs {
			if q, ok := maximal[f]; ok {
				n[i][f] = sub{QoS: q}
			} else if _, used := coveredQoS(f, maximal); s.Cover && used {
				n[i][f] = s
			}
		}
	}
	var notes []string
	for _, f := range slices.Sorted(maps.Keys(maximal)) {
		if n.has(f) {
			continue
		}
		if slot := p.place(n, f); slot < slots {
			n[slot][f] = sub{QoS: maximal[f]}
			continue
		}
		cover := n.widen(slots-1, f)
		notes = append(notes, fmt.Sprintf("%s is subscribed as %s, because it overlaps others and there are only %d sessions", f, cover, slots))
	}
	for i := range n {
		for f, s := range n[i] {
			if s.Cover {
				s.QoS, _ = coveredQoS(f, maximal)
				n[i][f] = s
			}
		}
	}
	n.level()
	return n, notes
}

// fold drops the filters that others cover, and gives each that stays the highest QoS of those it stands for.
func fold(want []drivers.Filter) map[string]byte {
	subs := make([]topic.Sub, len(want))
	for i, w := range want {
		subs[i] = topic.Sub{Filter: w.Topic, QoS: w.QoS}
	}
	out := map[string]byte{}
	for _, group := range topic.Fold(subs) {
		for _, s := range group {
			out[s.Filter] = s.QoS
		}
	}
	return out
}

// coveredQoS returns the highest QoS of the wanted filters that cover covers, and whether there are any.
func coveredQoS(cover string, want map[string]byte) (q byte, any bool) {
	for f, qos := range want {
		if topic.Covers(cover, f) {
			q, any = max(q, qos), true
		}
	}
	return q, any
}

// has says whether a filter is subscribed, by itself or under a cover.
func (p plan) has(f string) bool {
	for _, subs := range p {
		for g := range subs {
			if topic.Covers(g, f) {
				return true
			}
		}
	}
	return false
}

// place returns the lowest slot for a new filter of the plan n that comes after p: above all kept filters that it overlaps, and not
// below those that it replaces, since their session may still hold messages for it.
func (p plan) place(n plan, f string) int {
	slot := 0
	for i := range p {
		for g := range n[i] {
			if topic.Overlaps(f, g) {
				slot = max(slot, i+1)
			}
		}
		for g := range p[i] {
			if _, kept := n[i][g]; !kept && topic.Overlaps(f, g) {
				slot = max(slot, i)
			}
		}
	}
	return slot
}

// widen puts a filter into a slot in which it overlaps others, by a filter that covers them all and has no QoS yet.
func (p plan) widen(slot int, f string) (cover string) {
	cover = f
	for again := true; again; {
		again = false
		for g := range p[slot] {
			if topic.Overlaps(cover, g) {
				cover, again = common(cover, g), true
				delete(p[slot], g)
			}
		}
	}
	p[slot][cover] = sub{Cover: true}
	return cover
}

// common returns a filter that covers both: the levels that they share, and everything below.
func common(a, b string) string {
	if topic.Covers(a, b) {
		return a
	}
	if topic.Covers(b, a) {
		return b
	}
	var same []string
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; i < min(len(as), len(bs)) && as[i] == bs[i] && as[i] != "#"; i++ {
		same = append(same, as[i])
	}
	return strings.Join(append(same, "#"), "/")
}

// level gives filters of different sessions that overlap the same QoS, the higher one, so that it does not matter whose
// copy of a message is taken.
func (p plan) level() {
	for again := true; again; {
		again = false
		for i := range p {
			for j := range p {
				for f, s := range p[i] {
					for g, t := range p[j] {
						if i != j && t.QoS < s.QoS && topic.Overlaps(f, g) {
							t.QoS, again = s.QoS, true
							p[j][g] = t
						}
					}
				}
			}
		}
	}
}
