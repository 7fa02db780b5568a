// Package memory gives memory back to the machine. On a board with 512 MB, what a program touched once, while it started or in
// a burst of work, is better used as page cache than held by a process that waits.
package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Releaser knows where the program's own file is mapped. It is made once: a process that is confined later cannot look any more.
type Releaser struct{ file []span }

// NewReleaser finds the pages of the executable that cannot have been written to. Where it cannot, it says why, and what it returns releases the
// heap only.
func NewReleaser() (*Releaser, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return &Releaser{}, fmt.Errorf("finding the program's own file: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return &Releaser{}, fmt.Errorf("finding the program's own pages: %w", err)
	}
	return &Releaser{readOnly(maps, exe)}, nil
}

// Release collects the garbage, returns free pages of the heap, and lets go of the pages of the program's own file: code and tables
// that only starting up needs, mostly. The kernel keeps them in its cache, and may take the memory for something else. What is still needed comes
// back from there, 16 pages at a time, when it is used again, which costs less than a millisecond in all.
func (r *Releaser) Release() {
	debug.FreeOSMemory()
	for _, m := range r.file {
		// It fails for pages that are locked into memory, which is what somebody wanted then.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// span is a range of addresses.
type span struct{ from, to uintptr }

// readOnly lists the mappings of a file that are not writable, from the text of /proc/PID/maps: "from-to perms offset device inode path".
func readOnly(maps []byte, file string) []span {
	var spans []span
	for s := bufio.NewScanner(bytes.NewReader(maps)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || fields[5] != file || strings.Contains(fields[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, err1 := strconv.ParseUint(from, 16, strconv.IntSize)
		b, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
		if err1 == nil && err2 == nil && a < b {
			spans = append(spans, span{uintptr(a), uintptr(b)})
		}
	}
	return spans
}
