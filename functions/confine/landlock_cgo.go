//go:build cgo

package confine

// lock does nothing in a program that is linked with the C library: Landlock is put on each thread by itself, and not all of its threads are Go's.
func lock() (note string, err error) {
	return "", missing("this program is linked with the C library")
}
