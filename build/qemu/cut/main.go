// Cut is the first process of a guest whose power is cut: it runs a gateway, or the store alone, on the disk that outlives the guest, says
// what is still there from the time before, and then loads it until somebody pulls the plug. Build/chaos reads what it prints, one
// fact a line:
//
//	have KEY N      the numbers up to N of that key are there
//	wrong WHAT      something that must never be
//	loading         from now on
//	acked KEY N     the numbers up to N have been acknowledged
//	memtable N      the newest of the store's memtables
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/build/qemu/guest"
)

const (
	disk   = "/dev/vda"
	dir    = "/data/perigee"
	window = 16 // numbers of one key on their way
)

var keys = [...]string{"k0", "k1", "k2", "k3"}

// subject is what has to survive. Number n of a key sets values(n).
type subject interface {
	// have returns the last number of each key, and prints what does not fit together.
	have() (last [len(keys)]int, err error)
	// load sends the numbers of a key behind n, and calls acked, in order, with each that was acknowledged.
	load(key string, n int, acked func(n int)) error
}

// The kernel hands what it does not know of its command line to its first process, as environment.
func main() {
	time.AfterFunc(10*time.Minute, off) // whoever was to pull the plug is gone
	err := run(os.Getenv("subject"), os.Getenv("durability"))
	fmt.Println("wrong: the guest ended:", err)
	off()
}

func off() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }

func run(what, durability string) error {
	if err := prepare(); err != nil {
		return err
	}
	go memtables()
	start := newGateway
	if what == "store" {
		start = newBare
	}
	s, err := start(durability)
	if err != nil {
		return err
	}
	last, err := s.have()
	if err != nil {
		return err
	}
	for i, key := range keys {
		fmt.Println("have", key, last[i])
	}
	fmt.Println("loading")
	failed := make(chan error)
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() { failed <- s.load(key, last[i], func(n int) { fmt.Println("acked", key, n) }) })
	}
	return <-failed
}

// prepare mounts the disk, and keeps the kernel from writing anything that nobody has asked it to: else it would hide that something
// is not synced.
func prepare() error {
	if err := guest.Prepare(); err != nil {
		return err
	}
	for _, name := range []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"} {
		if err := module("/modules/" + name + ".ko"); err != nil {
			return fmt.Errorf("load the module %s: %w", name, err)
		}
	}
	for name, value := range map[string]string{"dirty_writeback_centisecs": "0", "dirty_expire_centisecs": "360000", "dirty_background_ratio": "90", "dirty_ratio": "95"} {
		if err := os.WriteFile("/proc/sys/vm/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	for range 100 {
		if _, err := os.Stat(disk); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := os.MkdirAll("/data", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(disk, "/data", "ext4", 0, "commit=3600"); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	return os.MkdirAll(dir, 0o700)
}

func module(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// values are the names of what a number sets. Ten numbers later they are set anew.
func values(n int) (names []string) {
	for i := range 20 {
		names = append(names, fmt.Sprintf("v%d", (20*n+i)%200))
	}
	return names
}

// whole prints which of the values of a key's last numbers are not as they were set.
func whole(key string, last int, value func(name string) int) {
	for n := max(last-9, 1); n <= last; n++ {
		for _, name := range values(n) {
			if is := value(name); is != n {
				fmt.Printf("wrong: %s of %s is of %d, and should be of %d\n", name, key, is, n)
			}
		}
	}
}

// memtables prints the number of the newest, 0 if there is none yet, and each that is begun.
func memtables() {
	for was, news := "", true; ; time.Sleep(10 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(dir, "*", "*.mem"))
		for _, f := range files {
			if name := strings.TrimSuffix(filepath.Base(f), ".mem"); name > was {
				was = name
				news = true
			}
		}
		if n, _ := strconv.Atoi(was); news {
			fmt.Println("memtable", n)
			news = false
		}
	}
}
