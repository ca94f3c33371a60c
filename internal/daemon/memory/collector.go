// Package memory keeps the resident memory of a daemon near what it uses.
//
// The collector of Go runs when the heap has grown by a part of itself. A burst of work leaves up to that much garbage, and
// afterwards, when little happens, it stays for minutes, and the memory that it was in for longer: a server of many idle
// sessions is as large as its last storm made it. Collector ends that; Tune makes use of it.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// burst is how many pieces of work are worth a look at the memory.
	burst = 256
	// A burst is over when calmSeconds seconds in a row brought less work than a calmShare of its busiest second.
	calmSeconds = 2
	calmShare   = 8
	// worthBytes is the least that is worth a collection, and worthShare the part of the live heap that is.
	worthBytes = 4 << 20
	worthShare = 8
)

// Collector collects garbage and returns it to the system, once, when a burst of work has passed. It has no goroutine and
// no timer while nothing happens; while much happens it has one, which looks once a second whether it is over.
type Collector struct {
	noted    atomic.Int64 // pieces of work
	seen     atomic.Int64 // of them, those before the last look at the memory
	watching atomic.Bool

	closed  context.Context
	close   context.CancelFunc
	running sync.WaitGroup

	// worth and collect are the runtime's, except in tests.
	worth   func() bool
	collect func()
}

// NewCollector returns a Collector. The caller closes it, after whoever calls Note has ended.
func NewCollector() *Collector { return newCollector(reclaimable, debug.FreeOSMemory) }

func newCollector(worth func() bool, collect func()) *Collector {
	c := &Collector{worth: worth, collect: collect}
	c.closed, c.close = context.WithCancel(context.Background())
	return c
}

// Note says that a piece of work was done: something after which memory may be left over. It is cheap and never waits.
func (c *Collector) Note() {
	if c.noted.Add(1)-c.seen.Load() >= burst && !c.watching.Load() && c.watching.CompareAndSwap(false, true) {
		c.running.Go(c.watch)
	}
}

// watch waits for the end of a burst.
func (c *Collector) watch() {
	defer c.watching.Store(false)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before, busiest := c.noted.Load(), int64(0)
	for calm := 0; calm < calmSeconds; calm++ {
		select {
		case <-c.closed.Done():
			return
		case <-tick.C:
		}
		now := c.noted.Load()
		work := now - before
		before, busiest = now, max(busiest, work)
		if work*calmShare > busiest {
			calm = -1
		}
	}
	if c.worth() {
		c.collect()
	}
	c.seen.Store(c.noted.Load())
}

// Close ends the watching and waits for it.
func (c *Collector) Close() {
	c.close()
	c.running.Wait()
}

// reclaimable says whether a collection would give back memory that is worth its time. What was allocated since the last
// one counts as garbage: it is not known better before the next.
func reclaimable() bool {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, // allocated and not swept
		{Name: "/memory/classes/heap/free:bytes"},    // free and not returned to the system
		{Name: "/gc/heap/live:bytes"},                // found in use by the last collection
	}
	metrics.Read(samples)
	live := samples[2].Value.Uint64()
	return samples[0].Value.Uint64()+samples[1].Value.Uint64() > live+max(worthBytes, live/worthShare)
}
