package server

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// sweepPage is about how many messages one question of the sweep looks at.
	sweepPage = 2000
	// sweepOverlap is how far each sweep looks back behind the end of the last: longer than a transaction of an insert
	// takes from reading the clock to its commit.
	sweepOverlap = int64(time.Minute / time.Microsecond)
)

// sweeper finds due messages without any hint. It asks only for what fell due since it last asked, so its cost does not
// grow with what waits for absent clients, nor with the number of sessions. It starts with the server: a session reads
// what is due by then when it opens.
type sweeper struct {
	server *Server
	cursor int64 // store time up to which everything was seen
}

// sweepForever sweeps at the configured interval, and marks again the sessions whose fetch failed: with a growing delay, as
// long as they go on failing.
func (s *Server) sweepForever(ctx context.Context) {
	sweeper := &sweeper{server: s, cursor: s.storeNow().UnixMicro()}
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = retryFirst, retryMost
	var retried time.Time
	next := time.NewTimer(jittered(s.cfg.SweepInterval))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			if err := s.guard(func() error { return sweeper.sweep(ctx) }); err != nil && ctx.Err() == nil {
				s.metrics.complain("sweep: %v", err)
			}
			next.Reset(jittered(s.cfg.SweepInterval))
		case <-s.retries.arrived:
			if time.Since(retried) > retryQuiet {
				delay.Reset()
			}
			if !pause(ctx, delay.NextBackOff()) {
				return
			}
			for n := range s.retries.take() {
				n.mark()
			}
			retried = time.Now()
		}
	}
}

// sweep marks the sessions of clients for which something fell due since the last sweep.
func (w *sweeper) sweep(ctx context.Context) error {
	after := w.cursor - sweepOverlap
	for {
		upTo, more, err := w.page(ctx, after)
		if err != nil {
			return err
		}
		w.cursor = max(w.cursor, upTo)
		if !more {
			return nil
		}
		after = upTo
	}
}

// page looks at some of what fell due after a time, and returns up to when that was. Its clients have been woken by then.
func (w *sweeper) page(ctx context.Context, after int64) (upTo int64, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ids, upTo, err := w.server.cfg.Store.DueClients(ctx, after, sweepPage)
	if err != nil {
		return 0, false, err
	}
	return upTo, len(ids) > 0 && upTo > after, w.wake(ctx, ids)
}

// wake marks the sessions of those clients that are really here. A session whose client has moved to another server may be
// a dead connection that nobody noticed yet; what was written to it would be lost for a redelivery interval.
func (w *sweeper) wake(ctx context.Context, ids []identity.ClientID) error {
	s := w.server
	ids = slices.DeleteFunc(ids, func(id identity.ClientID) bool { return s.registry.get(id) == nil })
	if len(ids) == 0 {
		return nil
	}
	clients, err := s.cfg.Store.GetClients(ctx, ids)
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id identity.ClientID) bool {
		return clients[id] == nil || (clients[id].StreamingTo != "" && clients[id].StreamingTo != s.cfg.Address)
	})
	s.metrics.swept.Add(float64(len(ids)))
	s.Wake(ids)
	return nil
}

// jittered spreads an interval over 75 to 125 per cent of itself.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
