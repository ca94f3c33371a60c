package fleet

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// tick is how often clients that send at a rate get what is due.
const tick = time.Millisecond

// maxBacklog bounds what a pacer that was held up makes good at once.
const maxBacklog = time.Second

// routine is a background job of a fleet, of which one runs at a time.
type routine struct {
	mu      sync.Mutex
	stop    context.CancelFunc // nil while it does not run
	running sync.WaitGroup
}

func (r *routine) begin(life context.Context, work func(context.Context)) {
	ctx, stop := context.WithCancel(life)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = stop
	r.running.Go(func() { work(ctx) })
}

// halt ends the job and waits for it.
func (r *routine) halt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
		r.running.Wait()
		r.stop = nil
	}
}

// StartSending makes clients send, in place of what they sent before.
func (f *Fleet) StartSending(s Sending) {
	s.setDefaults()
	f.pacing.halt()
	f.sending.Store(&s)
	switch {
	case s.Closed:
		for _, c := range f.clients {
			c.nudge()
		}
	case s.Rate > 0:
		f.pacing.begin(f.life, func(ctx context.Context) { f.pace(ctx, s.Rate, s.Group) })
	}
}

// StopSending ends it. Records in flight are still acknowledged.
func (f *Fleet) StopSending() {
	f.pacing.halt()
	f.sending.Store(nil)
}

// nudge makes a client send what it can.
func (c *client) nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushOrClose()
}

// pace hands out what is due, some messages to each client in turn, at most maxBacklog late: what a blocked writer held up
// longer than that is left out.
func (f *Fleet) pace(ctx context.Context, rate float64, group int) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	order := rand.Perm(len(f.clients))
	interval := time.Duration(float64(group) * float64(time.Second) / rate)
	due := time.Now()
	for turn := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		if late := now.Sub(due) - maxBacklog; late > 0 {
			f.meters.add(Throttled, group*int(late/interval))
			due = due.Add(late)
		}
		for ; due.Before(now) && ctx.Err() == nil; due = due.Add(interval) {
			f.clients[order[turn]].queue(due, group)
			turn = (turn + 1) % len(order)
		}
	}
}
