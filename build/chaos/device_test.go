package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// device is a block device of its own with an ext4 file system, mounted: what reaches it can be counted.
type device struct {
	t    *testing.T
	dir  string // where it is mounted
	name string // as in loop0
}

// newDevice mounts an ext4 file system of so many MiB on dir, until the test ends. It needs root, and a kernel with loop devices.
func newDevice(t *testing.T, dir string, mib int64) *device {
	t.Helper()
	for _, program := range []string{"losetup", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, mib<<20))
	command(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	path := command(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { command(t, "losetup", "--detach", path) })
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, unix.Mount(path, dir, "ext4", unix.MS_RELATIME, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return &device{t: t, dir: dir, name: filepath.Base(path)}
}

// written is how many bytes the device has been given to write, after all that waits has been written.
func (d *device) written() int64 {
	d.t.Helper()
	f, err := os.Open(d.dir)
	require.NoError(d.t, err)
	defer f.Close()
	require.NoError(d.t, unix.Syncfs(int(f.Fd())))
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/%s/stat", d.name))
	require.NoError(d.t, err)
	sectors, err := strconv.ParseInt(strings.Fields(string(b))[6], 10, 64)
	require.NoError(d.t, err)
	return sectors * 512
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return strings.TrimSpace(string(out))
}
