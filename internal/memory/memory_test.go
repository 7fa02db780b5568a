package memory

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadOnly(t *testing.T) {
	maps := `00400000-00a00000 r-xp 00000000 fe:00 123 /usr/bin/perigee
00a00000-01200000 r--p 00600000 fe:00 123                        /usr/bin/perigee
01200000-01250000 rw-p 00e00000 fe:00 123 /usr/bin/perigee
7f0000000000-7f0000001000 r--p 00000000 fe:00 9 /var/lib/perigee/store/000001.sst
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
nonsense
zz-00a00000 r-xp 00000000 fe:00 123 /usr/bin/perigee
`
	require.Equal(t, []span{{0x400000, 0xa00000}, {0xa00000, 0x1200000}}, readOnly([]byte(maps), "/usr/bin/perigee"))
	require.Empty(t, readOnly(nil, "/usr/bin/perigee"))
}

// The pages are gone afterwards, and the program runs on.
func TestRelease(t *testing.T) {
	file := func() int {
		raw, err := os.ReadFile("/proc/self/smaps_rollup")
		if err != nil {
			t.Skip("this kernel does not tell how much memory is in use:", err)
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); f[0] == "Pss_File:" {
				n, err := strconv.Atoi(f[1])
				require.NoError(t, err)
				return n
			}
		}
		t.Skip("this kernel does not tell file pages apart")
		return 0
	}
	r, err := NewReleaser()
	require.NoError(t, err)
	require.NotEmpty(t, r.file)
	before := file()
	r.Release()
	require.Less(t, file(), before)
}
