package demo

import (
	"fmt"
	"math"
	"time"
)

// brief writes a duration with about two digits: 340µs as 0.34 ms, 1m 23s, 2h 5m.
func brief(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", math.Floor(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
}

// ratio writes a share in percent.
func ratio(part, whole int64) string {
	switch {
	case whole == 0:
		return "-"
	case part == whole:
		return "100"
	}
	return fmt.Sprintf("%.1f", min(99.9, 100*float64(part)/float64(whole)))
}
