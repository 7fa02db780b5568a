package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/internal/units"
)

// frameEvery is the shortest time between two redraws: ten a second.
const frameEvery = 100 * time.Millisecond

// view shows the model on a screen and does what keys ask for, until ctx ends. It closes quit at the first q and
// hurry at the second.
func (d *demo) view(ctx context.Context, s *screen.Screen, quit, hurry chan struct{}) {
	keys := make(chan byte)
	defer d.crew.run(ctx, func(ctx context.Context) {
		for {
			k := s.Key(ctx.Done())
			select {
			case <-ctx.Done():
				return
			case keys <- k:
			}
			if k == 0 {
				return
			}
		}
	})()
	tick := time.NewTicker(frameEvery)
	defer tick.Stop()
	quits := 0
	var drawn time.Time
	var wasCols, wasRows int
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-keys:
			if !d.press(k) {
				continue
			}
			switch quits++; quits {
			case 1:
				close(quit)
			case 2:
				close(hurry)
			}
		case <-tick.C:
			m, changed := d.snapshot()
			cols, rows := s.Size()
			if !changed && cols == wasCols && rows == wasRows && time.Since(drawn) < time.Second {
				continue
			}
			drawn, wasCols, wasRows = time.Now(), cols, rows
			if s.Draw(frame(&m, d.st, cols, rows), cols, rows) != nil && quits == 0 {
				quits++ // the terminal has gone
				close(quit)
			}
		}
	}
}

// press does what a key asks for, and says whether that is the end. The end of the input, Ctrl-C and Ctrl-D are.
func (d *demo) press(key byte) (end bool) {
	switch key {
	case 'q', 'Q', 0, 3, 4:
		return true
	case 'c', 'C':
		cut, _ := d.wire.state()
		d.wire.set(!cut)
		if cut {
			d.board.tell(you, fmt.Sprintf("you mended the link to the cloud; %s on the way", units.Group(d.ledger.read().Waiting)))
		} else {
			d.board.tell(you, "you cut the link to the cloud; what is for it waits on the gateway's disk")
		}
	case 'k', 'K':
		pid := d.child.status().PID
		if err := d.child.kill(); err != nil {
			d.board.tell(bad, err.Error())
		} else {
			d.board.tell(you, fmt.Sprintf("you killed the gateway, pid %d, with -9", pid))
		}
	case 'x', 'X':
		if d.evil.attack() {
			d.board.tell(you, "you let a hostile function in")
		} else {
			d.board.tell(you, "a hostile function runs already")
		}
	case 'b', 'B':
		d.pressButton()
	}
	return false
}

// pressButton presses the simulated button, which must not hold up the view.
func (d *demo) pressButton() {
	select {
	case d.button <- struct{}{}:
	default: // one press is under way
	}
}

// presser carries presses of the button out, until ctx ends.
func (d *demo) presser(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.button:
		}
		ask, cancel := context.WithTimeout(ctx, askWithin)
		err := d.client.WriteDevice(ask, "button", true)
		cancel()
		if err != nil && ctx.Err() == nil {
			d.board.tell(bad, "the button cannot be pressed: "+firstLine(err.Error()))
		}
	}
}
