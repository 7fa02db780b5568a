package store

import (
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	profileAuto   = "auto"
	profileSmall  = "small"
	profileNormal = "normal"
)

// autoProfile chooses by the machine: small on 32 bits and below 1 GiB of memory.
func autoProfile() string {
	var info unix.Sysinfo_t
	if strconv.IntSize == 32 || unix.Sysinfo(&info) != nil {
		return profileSmall
	}
	// A gigabyte board shows less: the kernel and the GPU keep some.
	//nolint:unconvert // narrower on some machines
	if memory := uint64(info.Totalram) * uint64(info.Unit); memory < 900<<20 {
		return profileSmall
	}
	return profileNormal
}

// Stats returns what the store has done and what it takes. It looks at the disk: once a second is plenty.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	s.mu.Unlock()
	st.Profile = s.opts.Profile
	st.Durability = s.opts.Durability.String()
	st.Bytes = diskBytes(s.dir)
	st.Free, _ = freeBytes(s.dir)
	st.Full = s.full.Load()
	return st
}

// String returns the name that the configuration uses.
func (d Durability) String() string {
	if d == Crash {
		return "crash"
	}
	return "power"
}
