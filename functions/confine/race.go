//go:build race

package confine

// raceDetector is set in builds with Go's race detector, which maps far more memory than any limit of ours allows.
const raceDetector = true
