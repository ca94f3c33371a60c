package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/golang/glog"
)

// ended says how a session, or the attempt at one, went.
type ended struct {
	established bool          // record 0 was answered
	orderly     bool          // all records were acknowledged and both sides were done
	rekeyed     bool          // it was ended for a new identity
	lived       time.Duration // since record 0 was answered
	err         error
}

// proven reports whether the server did what it is there for.
func (e ended) proven() bool { return e.established && e.lived >= provenAfter }

// runSessions holds one session after the other until ctx ends or the agent leaves.
func (l *link) runSessions(ctx context.Context) error {
	failures := newBackoff(l.cfg.MaxFailureDelay)
	alone := time.Now() // since the last session ended, or the start
	for {
		end := l.trySession(ctx)
		if ctx.Err() != nil || l.leaving() {
			return nil
		}
		if end.established {
			alone = time.Now()
		}
		if end.proven() {
			failures.Reset()
		}
		delay := time.Duration(0)
		switch {
		case end.rekeyed:
		case end.proven() && end.orderly:
			delay = jitter(rotationDelay)
		default:
			delay = failures.NextBackOff()
		}
		if silent := time.Since(alone); !end.established && silent > l.cfg.LonelyLimit {
			return fmt.Errorf("%w: %v", ErrLonely, silent.Round(time.Second))
		}
		if !l.await(ctx, delay) {
			return nil
		}
	}
}

// await waits before the next round: the delay, and longer when all servers asked for it.
func (l *link) await(ctx context.Context, delay time.Duration) bool {
	delay = max(delay, l.endpoints.nextReady(time.Now()))
	return pause(ctx, delay, l.wake) && !l.leaving()
}

// trySession goes through the servers until one of them opens a session, and returns when that is over.
func (l *link) trySession(ctx context.Context) ended {
	end := ended{err: errNoServerReady}
	for _, p := range l.endpoints.ready(time.Now()) {
		end = l.sessionWith(ctx, p)
		if ctx.Err() != nil || end.rekeyed {
			return end
		}
		if end.err != nil {
			l.noteFailure(p, end.err)
		}
		if end.established {
			if !end.proven() {
				l.endpoints.disappoint()
			}
			return end
		}
		l.postpone(p, end.err)
	}
	l.endpoints.disappoint()
	return end
}

// sessionWith opens a session with one server, if need be a second time without compression.
func (l *link) sessionWith(ctx context.Context, p *endpoint) ended {
	l.watchdog.reset()
	end := l.newSession(p).run(ctx)
	if !end.established && l.tryPlain(p, end.err) {
		glog.Infof("server %s does not take compressed data, going on without", p.address)
		end = l.newSession(p).run(ctx)
	}
	l.watchdog.reset()
	return end
}
