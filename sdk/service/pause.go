package service

import (
	"context"
	"time"
)

// What agents expect of programs that wait for them.
const (
	firstPause  = time.Second
	longestWait = 15 * time.Second
	pauseGrowth = 1.5
)

// pause is the time between two tries to connect.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{next: firstPause} }

// pass waits, and longer the next time.
func (p *pause) pass(ctx context.Context) {
	timer := time.NewTimer(p.next)
	defer timer.Stop()
	p.next = min(time.Duration(float64(p.next)*pauseGrowth), longestWait)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
