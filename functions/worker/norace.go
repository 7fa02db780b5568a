//go:build !race

package worker

// raceDetector is set in builds with Go's race detector.
const raceDetector = false
