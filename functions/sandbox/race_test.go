//go:build race

package sandbox

// raced says that workers are built with the race detector, which takes memory of its own.
const raced = true
