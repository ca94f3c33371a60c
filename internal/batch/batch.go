// Package batch is group commit: it turns many small writes of many goroutines into few large ones, without ever waiting
// for more to come.
//
// A Batcher has one worker (or a few). The first item starts a run at once; what arrives while a run is under way waits
// in a bounded queue and forms the next run. So an idle system adds no delay, and a busy one makes its runs larger
// instead of more frequent.
//
// A run succeeds or fails as a whole (it is a transaction). When one of several items fails, the run is split in halves
// and tried again, down to single items, so that only the item at fault fails. Errors that splitting cannot cure, such as
// a database that is down, are excluded by Config.Split.
//
// With one worker, items run in the order in which they were queued.
//
// The goroutines belong to the Batcher: New starts them, Close waits for them. Whoever feeds a Batcher ends before it is
// closed, so that everything that was taken is also written.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	// ErrFull says that the queue has no room. Nothing was done.
	ErrFull = errors.New("batch queue is full")
	// ErrClosed says that the Batcher takes no more items. Nothing was done.
	ErrClosed = errors.New("batch is closed")
)

// Defaults of Config.
const (
	DefaultMaxItems = 256
	DefaultTimeout  = 30 * time.Second
	// queueFactor is how many full runs may wait by default.
	queueFactor = 8
)

// Config describes a Batcher of items T with results R.
type Config[T, R any] struct {
	// Name tells batchers apart in metrics and errors: a short constant such as "acks".
	Name string
	// Run does the work for items, in order, and returns one result for each. An error means that nothing was done for
	// any of them; an outcome of a single item belongs into R. The slice is only lent. Run must return when ctx ends.
	Run func(ctx context.Context, items []T) ([]R, error)
	// Split says whether a failed run of several items is worth splitting. Nil means every error but those of a context.
	Split func(error) bool
	// MaxItems bounds the items of one run. Default 256.
	MaxItems int
	// MaxBytes bounds the sum of Size over the items of one run; a larger item runs alone. 0 means no bound.
	MaxBytes int
	// Size is the weight of an item in bytes. Needed with MaxBytes only.
	Size func(T) int
	// Queue bounds the items that wait. Past it Do blocks, TryDo and DoAsync return ErrFull. Default 8 times MaxItems.
	Queue int
	// Workers is how many runs may be under way at once. Default 1.
	Workers int
	// Patience makes runs large although there are several workers: one begins only when the others have ended, or have
	// taken that long. 0 means that it does not wait for them.
	Patience time.Duration
	// Timeout bounds one run, each part of a split one for itself. Default 30 s.
	Timeout time.Duration
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Batcher collects items and runs them in batches. Its methods are safe for concurrent use.
type Batcher[T, R any] struct {
	cfg     Config[T, R]
	metrics *metrics
	queue   *queue[entry[T, R]]
	turns   turns

	// Runs use ctx; it ends when Close gives up.
	ctx    context.Context
	cancel context.CancelFunc

	closing   chan struct{} // closed by the first Close
	closeOnce sync.Once
	senders   sync.RWMutex // held for reading while queueing, for writing to close the queue
	workers   sync.WaitGroup
}

// entry is an item that waits, with whom to tell.
type entry[T, R any] struct {
	item   T
	queued time.Time
	caller context.Context // nil for DoAsync; an entry whose caller has left is dropped
	done   func(R, error)
}

// New starts a Batcher. The caller closes it.
func New[T, R any](cfg Config[T, R]) (*Batcher[T, R], error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	b := &Batcher[T, R]{
		cfg:     cfg,
		queue:   newQueue[entry[T, R]](cfg.Queue, cfg.MaxItems),
		turns:   newTurns(cfg.Workers, cfg.Patience),
		closing: make(chan struct{}),
	}
	b.metrics = newMetrics(cfg.Registerer, cfg.Name, func() float64 { return float64(b.queue.len()) })
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for range cfg.Workers {
		b.workers.Go(b.work)
	}
	return b, nil
}

func (c *Config[T, R]) complete() error {
	switch {
	case c.Name == "":
		return errors.New("batch: a name is needed")
	case c.Run == nil:
		return fmt.Errorf("batch %s: Run is needed", c.Name)
	case c.MaxBytes > 0 && c.Size == nil:
		return fmt.Errorf("batch %s: MaxBytes needs Size", c.Name)
	}
	c.MaxItems = positiveOr(c.MaxItems, DefaultMaxItems)
	c.Queue = positiveOr(c.Queue, queueFactor*c.MaxItems)
	c.Workers = positiveOr(c.Workers, 1)
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Split == nil {
		c.Split = func(err error) bool {
			return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
		}
	}
	return nil
}

func positiveOr(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// Do queues item and waits for its result. It blocks while the queue is full. When ctx ends first its error is returned;
// an item whose run has started by then may still be done.
func (b *Batcher[T, R]) Do(ctx context.Context, item T) (R, error) {
	return b.do(ctx, item, true)
}

// TryDo is Do that returns ErrFull instead of waiting for room.
func (b *Batcher[T, R]) TryDo(ctx context.Context, item T) (R, error) {
	return b.do(ctx, item, false)
}

// DoAsync queues item without waiting and returns ErrFull when there is no room. When it returns nil, done is called just
// once, from a worker: it must be quick and must not call Do.
func (b *Batcher[T, R]) DoAsync(item T, done func(R, error)) error {
	return b.enqueue(context.Background(), entry[T, R]{item: item, done: done}, false)
}

func (b *Batcher[T, R]) do(ctx context.Context, item T, wait bool) (R, error) {
	type answer struct {
		result R
		err    error
	}
	answered := make(chan answer, 1)
	e := entry[T, R]{item: item, caller: ctx, done: func(r R, err error) { answered <- answer{r, err} }}
	var none R
	if err := b.enqueue(ctx, e, wait); err != nil {
		return none, err
	}
	select {
	case a := <-answered:
		return a.result, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("batch %s: %w", b.cfg.Name, ctx.Err())
	}
}

func (b *Batcher[T, R]) enqueue(ctx context.Context, e entry[T, R], wait bool) error {
	b.senders.RLock()
	defer b.senders.RUnlock()
	select {
	case <-b.closing:
		return fmt.Errorf("batch %s: %w", b.cfg.Name, ErrClosed)
	default:
	}
	e.queued = time.Now()
	if err := b.makeRoom(ctx, wait); err != nil {
		return fmt.Errorf("batch %s: %w", b.cfg.Name, err)
	}
	b.queue.put(e)
	return nil
}

// makeRoom reserves a place in the queue.
func (b *Batcher[T, R]) makeRoom(ctx context.Context, wait bool) error {
	select {
	case b.queue.room <- struct{}{}:
		return nil
	default:
	}
	if !wait {
		b.metrics.refused.Inc()
		return ErrFull
	}
	select {
	case b.queue.room <- struct{}{}:
		return nil
	case <-b.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close takes no more items, runs those that wait, and returns when the workers have ended. When ctx ends first, the runs
// are cancelled, what then remains fails, and the error of ctx is returned.
func (b *Batcher[T, R]) Close(ctx context.Context) error {
	b.closeOnce.Do(func() {
		close(b.closing) // sends away those who wait for room
		b.senders.Lock()
		b.queue.close()
		b.senders.Unlock()
	})
	ended := make(chan struct{})
	go func() {
		b.workers.Wait()
		close(ended)
	}()
	defer b.cancel()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		b.cancel()
		<-ended
		return fmt.Errorf("batch %s: close: %w", b.cfg.Name, ctx.Err())
	}
}
