package engine

import (
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// bucket lets as many events through as limits.rate allows, a second's worth of them at once.
type bucket struct {
	tokens float64
	at     time.Duration // when they were counted
	wake   *entry        // armed while events wait for the next
}

// take takes a token, or answers how long the next one will take.
func (b *bucket) take(rate functions.Rate, now time.Duration) (wait time.Duration) {
	if rate <= 0 {
		return 0
	}
	most := max(float64(rate), 1)
	if b.at == 0 {
		b.tokens = most
	}
	b.tokens = min(b.tokens+(now-b.at).Seconds()*float64(rate), most)
	b.at = now
	if b.tokens < 1 {
		return time.Duration((1-b.tokens)/float64(rate)*float64(time.Second)) + time.Millisecond
	}
	b.tokens--
	return 0
}

// limited says whether a function has had as many events as its rate allows. What is over it waits, in the inbox if that takes long,
// and is offered again when its time has come. The caller holds mu.
func (e *Engine) limited(f *function) bool {
	now := e.clock.Now()
	wait := f.bucket.take(f.dep.spec().Limits.Rate, now)
	if wait > 0 && f.bucket.wake == nil {
		f.bucket.wake = e.wheel.add(now+wait, func() {
			e.mu.Lock()
			f.bucket.wake = nil
			e.mu.Unlock()
			e.pump()
		})
	}
	return wait > 0
}

// day is the span of limits.stream_bytes, on the gateway's clock.
const day = 24 * time.Hour

func streamedKey(fn string) store.Key { return store.NewKey(store.Meta).String("streamed").String(fn) }

// streamed counts what an invocation appends to streams towards the day's quota of its function, in the update that appends it.
func (e *Engine) streamed(tx store.Tx, j *job, o *functions.Outcome) error {
	limit := j.dep.spec().Limits.StreamBytes
	if limit <= 0 {
		return nil
	}
	var n int64
	for i := range o.Effects {
		if o.Effects[i].Kind == functions.Append {
			n += int64(len(o.Effects[i].Value))
		}
	}
	if n == 0 {
		return nil
	}
	key, today := streamedKey(j.fn.Name), int64(e.clock.Now()/day)
	had, err := readStreamed(tx, key, today)
	if err != nil {
		return err
	}
	if n += had; n > limit {
		return functions.OverStream(n, limit)
	}
	w := wire.NewWriter(nil)
	w.Int(today)
	w.Int(n)
	tx.Put(key, w.Data())
	return nil
}

// forgetStreamed drops what was counted of a function that is removed.
func (e *Engine) forgetStreamed(fn string) error {
	key := streamedKey(fn)
	var there bool
	err := e.st.View(func(r store.Reader) (err error) {
		_, there, err = r.Get(key)
		return err
	})
	if err != nil || !there {
		return err
	}
	return e.st.Update(func(tx store.Tx) error {
		tx.Delete(key)
		return nil
	})
}

// readStreamed is how much was appended on a day.
func readStreamed(r store.Reader, key store.Key, today int64) (int64, error) {
	b, ok, err := r.Get(key)
	if err != nil || !ok {
		return 0, err
	}
	d := wire.NewReader(b)
	on, n := d.Int(), d.Int()
	if err := d.Done(); err != nil {
		return 0, fmt.Errorf("the bytes that a function has appended today: %w: %w", store.ErrDamaged, err)
	}
	if on != today {
		return 0, nil
	}
	return n, nil
}
