package memory

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// fake counts collections; worth is what the memory looks like.
type fake struct {
	worth     bool
	collected int
}

func (f *fake) collector() *Collector {
	return newCollector(func() bool { return f.worth }, func() { f.collected++ })
}

// work notes so many pieces in each of so many seconds.
func work(c *Collector, seconds, each int) {
	for range seconds {
		for range each {
			c.Note()
		}
		time.Sleep(time.Second) // of the bubble
	}
	synctest.Wait()
}

// Much work is collected after once, when it has ended, and not again until there was as much.
func TestCollectsOnceAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{worth: true}
		c := f.collector()
		defer c.Close()
		for round := range 3 {
			work(c, 10, 500)
			if f.collected != round {
				t.Errorf("%d collections while work is done, want those %d of before", f.collected, round)
			}
			work(c, calmSeconds+1, 10)
			if f.collected != round+1 {
				t.Errorf("%d collections after the burst, want %d", f.collected, round+1)
			}
			if c.watching.Load() {
				t.Error("it still watches")
			}
		}
	})
}

func TestLittleWorkIsNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{worth: true}
		c := f.collector()
		defer c.Close()
		work(c, 1, burst-1)
		if c.watching.Load() || f.collected != 0 {
			t.Errorf("watching %v, %d collections", c.watching.Load(), f.collected)
		}
	})
}

// Steady work never calms down, so it is left to the runtime.
func TestSteadyWorkIsNotDisturbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{worth: true}
		c := f.collector()
		defer c.Close()
		work(c, 600, 20)
		if f.collected != 0 {
			t.Errorf("%d collections", f.collected)
		}
	})
}

func TestNothingIsCollectedThatIsNotWorthIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{}
		c := f.collector()
		defer c.Close()
		work(c, 2, burst)
		work(c, calmSeconds+1, 0)
		if f.collected != 0 || c.watching.Load() {
			t.Errorf("%d collections, watching %v", f.collected, c.watching.Load())
		}
	})
}

func TestCloseEndsTheWatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake{worth: true}
		c := f.collector()
		work(c, 1, burst)
		c.Close()
		work(c, calmSeconds+1, 0)
		if f.collected != 0 || c.watching.Load() {
			t.Errorf("%d collections, watching %v", f.collected, c.watching.Load())
		}
	})
}

// What the runtime tells: garbage is worth a collection, and after it there is none.
func TestReclaimable(t *testing.T) {
	c := NewCollector()
	defer c.Close()
	c.collect()
	if reclaimable() {
		t.Error("right after a collection there is something to collect")
	}
	garbage := make([][]byte, 0, 64)
	for range 64 {
		garbage = append(garbage, make([]byte, 1<<20))
	}
	if !reclaimable() {
		t.Error("64 MiB are not worth a collection")
	}
	runtime.KeepAlive(garbage)
	c.collect()
	if reclaimable() {
		t.Error("after the collection there is still something to collect")
	}
}
