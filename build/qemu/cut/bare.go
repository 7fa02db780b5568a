package main

import (
	"encoding/binary"
	"log/slog"
	"os"

	"github.com/perigee-iot/perigee/internal/store"
)

// bare is the store alone: it writes as fast as it can, so that it begins memtables much more often than under a gateway.
type bare struct{ st *store.Store }

func newBare(durability string) (subject, error) {
	o := store.Options{Profile: "small", MinFree: 16 << 20, SetAside: true,
		Log: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelError}))}
	if durability == store.Crash.String() {
		o.Durability = store.Crash
	}
	st, err := store.Open(dir, o)
	return &bare{st}, err
}

func storeKey(key, name string) []byte { return store.NewKey(store.State).String(key).String(name) }

func number(r store.Reader, key, name string) (int, error) {
	v, _, err := r.Get(storeKey(key, name))
	if err != nil || len(v) < 8 {
		return 0, err
	}
	return int(binary.BigEndian.Uint64(v)), nil
}

func (b *bare) have() (last [len(keys)]int, err error) {
	return last, b.st.View(func(r store.Reader) error {
		for i, key := range keys {
			if last[i], err = number(r, key, "last"); err != nil {
				return err
			}
			whole(key, last[i], func(name string) int {
				n, err := number(r, key, name)
				if err != nil {
					return -1
				}
				return n
			})
		}
		return nil
	})
}

func (b *bare) load(key string, n int, acked func(n int)) error {
	room, done := make(chan struct{}, window), make(chan int, window)
	go func() {
		for n := range done {
			acked(n)
			<-room
		}
	}()
	value := make([]byte, 900)
	for n := n + 1; ; n++ { // each turn has an n of its own
		room <- struct{}{}
		err := b.st.Update(func(tx store.Tx) error {
			binary.BigEndian.PutUint64(value, uint64(n))
			tx.Put(storeKey(key, "last"), value[:8])
			for _, name := range values(n) {
				tx.Put(storeKey(key, name), value)
			}
			tx.OnDurable(func() { done <- n })
			return nil
		})
		if err != nil {
			return err
		}
	}
}
