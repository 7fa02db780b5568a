//go:build !race

package confine

// raceDetector is set in builds with Go's race detector.
const raceDetector = false
