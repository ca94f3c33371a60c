package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestBatchesShrinkOnASlowLine(t *testing.T) {
	const mib = 1 << 20
	slow := fmt.Errorf("round: %w", errTooSlow)
	for _, tt := range []struct {
		name     string
		err      error
		bytes    int
		underWay time.Duration
		want     int
	}{
		{"no answer in time", slow, 6 * mib, 0, 3 * mib},
		{"no acknowledgement in time", errAckTimeout, 6 * mib, 0, 3 * mib},
		{"the server lost patience", &statusError{code: http.StatusRequestTimeout}, 6 * mib, 0, 3 * mib},
		{"the server lost patience and says nothing", errHungUp, 6 * mib, sluggish, 3 * mib},
		{"broken soon", errHungUp, 6 * mib, sluggish - 1, maxBatchBytes},
		{"refused", &statusError{code: http.StatusServiceUnavailable}, 6 * mib, 0, maxBatchBytes},
		{"stopped", context.Canceled, 6 * mib, 0, maxBatchBytes},
		{"a small record", slow, smallestBatch, time.Hour, maxBatchBytes},
		{"a little more", slow, smallestBatch + 1, 0, smallestBatch},
	} {
		l := &link{batchBytes: maxBatchBytes}
		for range 2 { // the second time the same bytes went to another server
			l.noteBroken(tt.err, tt.bytes, tt.underWay)
		}
		if got := l.batchLimit(); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
	l := &link{batchBytes: maxBatchBytes}
	for range 10 {
		l.noteBroken(slow, l.batchLimit()+2*mib, 0) // its last message reaches beyond
	}
	if got := l.batchLimit(); got > smallestBatch+2*mib {
		t.Errorf("after ten failures: %d bytes", got)
	}
	l.measure(mib, 100*time.Millisecond)
	if got := l.batchLimit(); got != maxBatchBytes {
		t.Errorf("on a line that is fast again: %d bytes", got)
	}
}

func TestOldestFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlights(func() { t.Error("overdue") }, func(int, time.Duration) {})
		defer f.end(false)
		if size, underWay := f.oldest(); size != 0 || underWay != 0 {
			t.Errorf("without any: %d bytes, %v", size, underWay)
		}
		f.launch(nil, 100)
		time.Sleep(time.Minute) // of the bubble's clock
		f.launch(nil, 200)
		if size, underWay := f.oldest(); size != 100 || underWay != time.Minute {
			t.Errorf("of two: %d bytes, %v", size, underWay)
		}
		f.establish(true)
		if size, underWay := f.oldest(); size != 200 || underWay != 0 {
			t.Errorf("after the first was acknowledged: %d bytes, %v", size, underWay)
		}
	})
}

// What a contact was cancelled for is told from an error that came by itself.
func TestExplain(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := explain(ctx, errHungUp); !errors.Is(err, errHungUp) {
		t.Errorf("before: %v", err)
	}
	cancel(errTooSlow)
	if err := explain(ctx, errHungUp); !errors.Is(err, errTooSlow) {
		t.Errorf("after: %v", err)
	}
}
