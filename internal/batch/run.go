package batch

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// PanicError is the error of a run that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// work is one worker: it collects what waits, runs it, and ends when the queue is closed and empty.
func (b *Batcher[T, R]) work() {
	var c collector[T, R]
	for {
		turns := b.turns.of(c.held)
		turns.take()
		if !c.collect(b) {
			turns.giveUp()
			return
		}
		turns.during(func() { b.run(c.batch) })
		clear(c.batch) // keep nothing alive while idle
	}
}

// collector is the state of one worker between runs.
type collector[T, R any] struct {
	batch []entry[T, R]
	over  entry[T, R] // taken from the queue, but too large for the batch it was taken for
	held  bool        // over is set
}

// collect waits for a first item, adds those that wait already, and says false at the end of the queue.
func (c *collector[T, R]) collect(b *Batcher[T, R]) bool {
	c.batch = c.batch[:0]
	bytes := 0
	for len(c.batch) < b.cfg.MaxItems {
		e, ok := c.next(b)
		if !ok {
			break
		}
		size := 0
		if b.cfg.MaxBytes > 0 {
			size = b.cfg.Size(e.item)
		}
		if len(c.batch) > 0 && b.cfg.MaxBytes > 0 && bytes+size > b.cfg.MaxBytes {
			c.over, c.held = e, true
			break
		}
		bytes += size
		c.batch = append(c.batch, e)
	}
	return len(c.batch) > 0
}

// next returns the next item. It waits for one only while the batch is empty.
func (c *collector[T, R]) next(b *Batcher[T, R]) (entry[T, R], bool) {
	if c.held {
		e := c.over
		c.over, c.held = entry[T, R]{}, false
		return e, true
	}
	if len(c.batch) == 0 {
		return b.queue.take()
	}
	return b.queue.tryTake()
}

// run drops entries whose callers have left and runs the others.
func (b *Batcher[T, R]) run(batch []entry[T, R]) {
	now := time.Now()
	live := batch[:0]
	for _, e := range batch {
		b.metrics.wait.Observe(now.Sub(e.queued).Seconds())
		if e.caller != nil && e.caller.Err() != nil {
			var none R
			b.answer(e, none, e.caller.Err())
			continue
		}
		live = append(live, e)
	}
	if len(live) > 0 {
		b.runSplit(live)
	}
}

// runSplit runs a batch and, when that fails for a reason that may lie in one of its items, its halves.
func (b *Batcher[T, R]) runSplit(batch []entry[T, R]) {
	results, err := b.runOnce(batch)
	switch {
	case err == nil:
		for i, e := range batch {
			b.answer(e, results[i], nil)
		}
	case len(batch) > 1 && b.ctx.Err() == nil && b.cfg.Split(err):
		b.metrics.splits.Inc()
		half := len(batch) / 2
		b.runSplit(batch[:half])
		b.runSplit(batch[half:])
	default:
		err = fmt.Errorf("batch %s: %w", b.cfg.Name, err)
		var none R
		for _, e := range batch {
			b.answer(e, none, err)
		}
	}
}

// runOnce calls Run for a batch and turns a panic into an error.
func (b *Batcher[T, R]) runOnce(batch []entry[T, R]) (results []R, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.cfg.Timeout)
	defer cancel()
	items := make([]T, len(batch))
	for i, e := range batch {
		items[i] = e.item
	}
	started := time.Now()
	defer func() {
		if v := recover(); v != nil {
			b.metrics.panics.Inc()
			results, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
		b.metrics.items.Observe(float64(len(batch)))
		b.metrics.run.Observe(time.Since(started).Seconds())
	}()
	results, err = b.cfg.Run(ctx, items)
	if err == nil && len(results) != len(items) {
		return nil, fmt.Errorf("%d results for %d items", len(results), len(items))
	}
	return results, err
}

// answer tells the owner of an entry. A panic of its callback stays with it.
func (b *Batcher[T, R]) answer(e entry[T, R], r R, err error) {
	defer func() {
		if recover() != nil {
			b.metrics.panics.Inc()
		}
	}()
	if e.done != nil {
		e.done(r, err)
	}
}
