// Package crew runs tasks in goroutines that are used again.
//
// A new goroutine has a small stack. A task that decodes what a peer sent, or writes to it over TLS, needs several times as
// much, so a goroutine for each of them spends more time with copying its stack from size to size than with being started.
// A goroutine that has done such a task has the stack for the next.
//
// A task never waits for another one: it goes to a goroutine that is free, the one that was busy last and so has the
// warmest memory, or to a new one. Only how many may stay when they are free is bounded. The garbage collector halves stacks
// that are too large for what they hold, so those that stay cost next to nothing after a while.
package crew

import "sync"

// Crew is a set of goroutines that run tasks. It owns them until Close.
type Crew struct {
	most    int // of the goroutines that stay when they are free
	members sync.WaitGroup

	mu     sync.Mutex
	free   []member // guarded by mu; the last one was busy last
	closed bool     // guarded by mu
}

// member is a goroutine of a Crew: where it finds its next task. nil tells it to go. There is room for one, so that whoever
// hands it over does not wait.
type member chan func()

// New returns a Crew of which at most that many goroutines stay while there is nothing to do.
func New(most int) *Crew { return &Crew{most: most} }

// Start runs task in a goroutine. It never waits. After Close it does nothing. A panic of task is its own to contain, as that of
// any goroutine.
func (c *Crew) Start(task func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if last := len(c.free) - 1; last >= 0 {
		c.free[last] <- task
		c.free = c.free[:last]
		return
	}
	c.members.Go(func() { c.work(task) })
}

// work runs tasks as long as they come.
func (c *Crew) work(task func()) {
	m := make(member, 1)
	for task != nil {
		task()
		task = c.next(m)
	}
}

// next waits for a task. It returns nil when the member is to go.
func (c *Crew) next(m member) func() {
	if !c.stays(m) {
		return nil
	}
	return <-m
}

func (c *Crew) stays(m member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.free) >= c.most {
		return false
	}
	c.free = append(c.free, m)
	return true
}

// Close waits for the tasks that were started, and for all goroutines.
func (c *Crew) Close() {
	c.mu.Lock()
	c.closed = true
	for _, m := range c.free {
		m <- nil
	}
	c.free = nil
	c.mu.Unlock()
	c.members.Wait()
}
