package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMend(t *testing.T) {
	got, err := mend("a\n\t" + wrong + "\nb")
	require.NoError(t, err)
	require.Equal(t, "a\n\t"+right+"\nb", got)
	for _, text := range []string{"", right, wrong + wrong} {
		_, err := mend(text)
		require.ErrorContains(t, err, "not once")
	}
}

// program trips the defect: it fills an allocator beyond its first buffer and looks whether what it had there is intact.
const program = `package main

import "github.com/dgraph-io/ristretto/v2/z"

func main() {
	a := z.NewAllocator(512, "test")
	var all [][]byte
	for i := range 100 {
		b := a.Allocate(100)
		for j := range b {
			b[j] = byte(i)
		}
		all = append(all, b)
	}
	for i, b := range all {
		for _, c := range b {
			if c != byte(i) {
				panic("overwritten")
			}
		}
	}
}
`

// TestMendedBuild builds that program for a 32-bit machine with the overlay, and without it, which shows that it is still needed.
func TestMendedBuild(t *testing.T) {
	dir := t.TempDir()
	overlay := filepath.Join(dir, "overlay.json")
	require.NoError(t, run(overlay))
	main := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(main, []byte(program), 0o600))
	build := func(name string, args ...string) string {
		binary := filepath.Join(dir, name)
		cmd := exec.Command("go", append(append([]string{"build", "-o", binary}, args...), main)...)
		cmd.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return binary
	}
	mended, asItIs := build("mended", "-overlay", overlay), build("as-it-is")
	out, err := exec.Command(mended).CombinedOutput()
	if err != nil && strings.Contains(err.Error(), "exec format error") {
		return // not a machine that runs 386: that it builds must do
	}
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(asItIs).CombinedOutput()
	require.Error(t, err, "the library has been mended: remove this program")
	require.Contains(t, string(out), "panic")
}
