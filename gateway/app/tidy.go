package app

import (
	"context"
	"time"

	"github.com/perigee-iot/perigee/internal/memory"
)

const (
	tidyFirst = 5 * time.Second // after the start
	tidyEvery = time.Minute
	tidyQuiet = 60        // events within tidyEvery that are no work to speak of
	tidyBytes = 256 << 10 // nor are so many bytes written: deploying many functions is no event, and takes memory
	tidyAgain = 10        // quiet times after which it is worth doing again
)

// tidy gives memory back to the machine when the start is over, when a burst of work is over, and now and then while little happens.
func (a *App) tidy() {
	rel, err := memory.NewReleaser()
	if err != nil {
		a.log.Debug("only the heap can be given back to the machine", "error", err)
	}
	a.background("memory", func(ctx context.Context) error {
		timer := time.NewTimer(tidyFirst)
		defer timer.Stop()
		var seen, written int64
		for quiet := tidyAgain; ; {
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
				timer.Reset(tidyEvery)
			}
			now, bytes := a.engine.Counts().Received, a.st.Stats().BytesWritten
			if now-seen > tidyQuiet || bytes-written > tidyBytes {
				quiet = tidyAgain // worth it as soon as this is over
			} else if quiet++; quiet > tidyAgain {
				quiet = 0
				rel.Release()
			}
			seen, written = now, bytes
		}
	})
}
