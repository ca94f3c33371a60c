package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// firstFailureDelay is the longest wait after a first failure; it grows by half with each further one. A bound that doubled
	// would punish luck: whoever drew short waits while a server was away for a second has failed four or five times by its
	// return, and would be the last of the fleet to come back by far.
	firstFailureDelay = time.Second
	failureGrowth     = 1.5
	// rotationDelay is the longest wait before the next session when one ended in order: enough to spread clients that a
	// server sends away together, too short to be felt.
	rotationDelay = 500 * time.Millisecond
	// provenAfter is how long a session has to last to count as a success of the server. One that is closed right after
	// its first record is a failure, or agents would hammer the server that does it.
	provenAfter = 10 * time.Second
)

// newBackoff returns waits with full jitter: uniform between nothing and a bound that grows up to limit.
func newBackoff(limit time.Duration) *backoff.ExponentialBackOff {
	limit = max(limit, firstFailureDelay)
	b := &backoff.ExponentialBackOff{
		InitialInterval:     firstFailureDelay / 2, // half the bound, and all of it as jitter to both sides
		RandomizationFactor: 1,
		Multiplier:          failureGrowth,
		MaxInterval:         limit / 2,
	}
	b.Reset()
	return b
}

// jitter returns a random part of d.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// stretch returns d times a random factor between 1 and 1.5.
func stretch(d time.Duration) time.Duration { return d + jitter(d/2) }

// pause waits for d, or until ctx ends or wake receives. It reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
