package server

import (
	"sync"
)

// retryList holds sessions whose fetch failed, until the sweeper marks them again: bounded by the number of sessions, and
// without a timer for each.
type retryList struct {
	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu
	arrived  chan struct{}         // has room for one: something was added
}

func newRetryList() *retryList {
	return &retryList{sessions: make(map[*session]struct{}), arrived: make(chan struct{}, 1)}
}

func (l *retryList) add(n *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[n] = struct{}{}
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// take empties the list.
func (l *retryList) take() map[*session]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.sessions
	l.sessions = make(map[*session]struct{})
	return taken
}
