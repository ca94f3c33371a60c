package channel

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// deadliner is what files and connections have.
type deadliner interface {
	SetReadDeadline(time.Time) error
}

// guard puts deadlines on reads: by the stream's own means where it has them, else by a timer that calls expired.
type guard struct {
	own     deadliner // nil when the stream has no deadlines
	expired func()    // nil when there is nothing to call

	deadline time.Time // as armed; zero is none
	timer    *time.Timer
	passed   *atomic.Bool // set by the timer's goroutine before it calls expired
}

func newGuard(r io.Reader, expired func()) guard {
	own, _ := r.(deadliner)
	return guard{own: own, expired: expired}
}

// arm sets the deadline of the reads that follow; zero is none. A deadline that is already past fails them.
func (g *guard) arm(deadline time.Time) {
	if deadline.IsZero() && g.deadline.IsZero() {
		return
	}
	g.deadline = deadline
	if g.own != nil && g.own.SetReadDeadline(deadline) == nil {
		return
	}
	g.own = nil // it cannot; if that is because the stream has ended, the read will say so
	if g.expired != nil {
		g.armTimer(deadline)
	}
}

func (g *guard) armTimer(deadline time.Time) {
	if g.timer != nil {
		g.timer.Stop()
	}
	if deadline.IsZero() {
		return
	}
	passed := &atomic.Bool{} // of this deadline: a timer that was too late to stop must not fail a later read
	g.passed = passed
	g.timer = time.AfterFunc(time.Until(deadline), func() {
		passed.Store(true)
		g.expired()
	})
}

// check ends the deadline and returns the error of what was read under it, with the deadline in it when that is the cause.
func (g *guard) check(err error) error {
	if g.timer == nil {
		return err
	}
	g.timer.Stop()
	if err != nil && g.passed.Load() {
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	}
	return err
}
