package harness

import (
	"testing"
	"time"
)

const (
	firstPoll = 5 * time.Millisecond
	lastPoll  = 100 * time.Millisecond
)

// Eventually polls condition until it returns nil, and fails the test with its last error when within has passed.
func Eventually(tb testing.TB, within time.Duration, what string, condition func() error) {
	tb.Helper()
	deadline := time.Now().Add(within)
	for delay := firstPoll; ; delay = min(2*delay, lastPoll) {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-time.After(delay)
	}
}

// Stays polls condition for a while and fails the test as soon as it returns an error: for what must not happen.
func Stays(tb testing.TB, during time.Duration, what string, condition func() error) {
	tb.Helper()
	tick := time.NewTicker(lastPoll)
	defer tick.Stop()
	for end := time.After(during); ; {
		if err := condition(); err != nil {
			tb.Fatalf("%s: %v", what, err)
		}
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}
