package fleet

import (
	"testing"
	"time"
)

// waits are many draws after some failures in a row.
func waits(failures int, draw func(*client) time.Duration) (longest time.Duration, after int) {
	f := &Fleet{}
	f.job.setDefaults()
	for range 200 {
		c := &client{fleet: f, online: true, failures: failures}
		longest = max(longest, draw(c))
		after = c.failures
	}
	return longest, after
}

func TestWaitsGrow(t *testing.T) {
	for failures, bound := range map[int]time.Duration{
		0: time.Second, 1: 1500 * time.Millisecond, 2: 2250 * time.Millisecond, 14: 5 * time.Minute, 1000: 5 * time.Minute,
	} {
		longest, after := waits(failures, func(c *client) time.Duration {
			wait, _ := c.dialFailed()
			return wait
		})
		if longest > bound || longest < bound/2 || after != failures+1 {
			t.Errorf("after %d failures: longest wait of 200 is %v, want about %v; then there are %d failures", failures, longest, bound, after)
		}
	}
}

func TestWaitsAfterSessions(t *testing.T) {
	for name, c := range map[string]struct {
		lived    time.Duration
		orderly  bool
		bound    time.Duration
		failures int
	}{
		"long, in order":  {time.Minute, true, rotationDelay, 0},
		"long, broken":    {time.Minute, false, time.Second, 1},
		"short, in order": {time.Second, true, 3375 * time.Millisecond, 4},
		"short, broken":   {time.Second, false, 3375 * time.Millisecond, 4},
	} {
		longest, after := waits(3, func(client *client) time.Duration {
			wait, _ := client.detach(&link{began: time.Now().Add(-c.lived)}, c.orderly)
			return wait
		})
		if longest > c.bound || longest < c.bound/2 || after != c.failures {
			t.Errorf("%s: longest wait of 200 is %v, want about %v; %d failures, want %d", name, longest, c.bound, after, c.failures)
		}
	}
}
