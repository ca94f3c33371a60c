package agent

import (
	"sync"
	"time"
)

const (
	// minStall is the least silence of the communicator that counts as a hang.
	minStall = time.Hour
	// stallGrace is what a communicator gets after the machine woke up and all timers fire together.
	stallGrace = 5 * time.Second
)

// watchdog calls stalled when the communicator neither begins an attempt nor holds a session for too long. The limit is
// above each wait that the configuration asks for (G-23). A watchdog has no goroutine, and one timer.
type watchdog struct {
	limit   time.Duration
	stalled func()

	mu    sync.Mutex
	timer *time.Timer
	turn  uint64 // changes with each reset, so that a timer that fired late is told apart
}

func newWatchdog(longestWait time.Duration, stalled func()) *watchdog {
	return &watchdog{limit: max(minStall, 2*longestWait), stalled: stalled}
}

// reset says that the communicator is alive, and starts to count.
func (w *watchdog) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armLocked(w.limit, w.suspect)
}

// stop ends the count: a session is up, which has deadlines of its own, or the agent is stopping.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn++
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watchdog) armLocked(d time.Duration, then func(turn uint64)) {
	w.turn++
	turn := w.turn
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(d, func() { then(turn) })
}

// suspect gives the communicator one more moment.
func (w *watchdog) suspect(turn uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turn == turn {
		w.armLocked(stallGrace, w.bark)
	}
}

func (w *watchdog) bark(turn uint64) {
	w.mu.Lock()
	current := w.turn == turn
	w.mu.Unlock()
	if current {
		w.stalled()
	}
}
