package service

import (
	"sync"
	"time"
)

// activity knows when something last happened. While the agent itself is busy with it, it happens all the time.
type activity struct {
	mu   sync.Mutex
	last time.Time
	busy int
}

func (a *activity) touch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
}

// begin says that something goes on until the function that it returns is called.
func (a *activity) begin() (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.busy--
		a.last = time.Now()
	}
}

// silence is how long nothing has happened.
func (a *activity) silence() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy > 0 {
		return 0
	}
	return time.Since(a.last)
}
