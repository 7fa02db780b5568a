package store

// recent is what was committed last, so that the next event of a key finds its state without asking Badger, which looks
// through memtables and tables and allocates each time. It holds values only, and of the newest ones: two maps take turns.
// When the young one is full, the old one is forgotten, and what is read from the old one is young again once it is written.
type recent struct {
	young, old map[string]entry
	bytes      int64 // of the young one
	most       int64
}

const (
	recentBytes    = 512 << 10 // of all
	recentEntry    = 4 << 10   // bytes of a key and its value; larger ones are left to Badger
	recentOverhead = 96        // bytes of memory beside a key and its value, roughly
)

func newRecent(most int64) recent {
	return recent{young: map[string]entry{}, old: map[string]entry{}, most: most / 2}
}

// committed takes over what a group has written.
func (r *recent) committed(entries map[string]entry) {
	for key, e := range entries {
		n := int64(len(key) + len(e.value))
		if was, ok := r.young[key]; ok {
			r.bytes -= int64(len(key)+len(was.value)) + recentOverhead
			delete(r.young, key)
		}
		delete(r.old, key)
		if e.deleted || n > recentEntry {
			continue
		}
		if n += recentOverhead; r.bytes+n > r.most {
			clear(r.old)
			r.young, r.old, r.bytes = r.old, r.young, 0
		}
		r.young[key] = entry{value: e.value}
		r.bytes += n
	}
}

// get returns the value of a key. That it is not here says nothing.
func (r *recent) get(key []byte) ([]byte, bool) {
	e, ok := r.young[string(key)]
	if !ok {
		e, ok = r.old[string(key)]
	}
	return e.value, ok
}

// forget drops everything: what is on the disk may be something else.
func (r *recent) forget() {
	clear(r.young)
	clear(r.old)
	r.bytes = 0
}
