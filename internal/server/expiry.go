package server

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

const (
	// leaveGrace is the time between done_sending and the end of a session.
	leaveGrace = 30 * time.Second
	// expiryTick is how often the ages of sessions are looked at: one timer for all of them.
	expiryTick = time.Second
)

// expiry knows when each session is over. It holds all of them, current or replaced.
type expiry struct {
	mu       sync.Mutex
	sessions leaveHeap // guarded by mu
}

func newExpiry() *expiry { return &expiry{} }

// addOpening takes in a session whose first exchange is still to come; it is cut off when that takes too long.
func (e *expiry) addOpening(n *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n.told = true
	n.leaveAt = time.Now().Add(longestRecord + recordTimeout)
	heap.Push(&e.sessions, n)
}

// live gives a session its lifetime: it is told to leave a grace period before its end.
func (e *expiry) live(n *session, lifetime time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.expiryIndex < 0 {
		return // cut off in the same instant
	}
	n.told = false
	n.leaveAt = time.Now().Add(lifetime - min(leaveGrace, lifetime/2))
	heap.Fix(&e.sessions, n.expiryIndex)
}

func (e *expiry) remove(n *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.expiryIndex >= 0 {
		heap.Remove(&e.sessions, n.expiryIndex)
	}
}

// due takes out the sessions that have to be told, and puts them back for their end; over are those that had their grace.
func (e *expiry) due(now time.Time) (told, over []*session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.sessions) > 0 && !e.sessions[0].leaveAt.After(now) {
		n := e.sessions[0]
		if n.told {
			heap.Pop(&e.sessions)
			over = append(over, n)
			continue
		}
		e.tellLocked(n, now)
		told = append(told, n)
	}
	return told, over
}

func (e *expiry) tellLocked(n *session, now time.Time) {
	n.told = true
	n.leaveAt = now.Add(leaveGrace)
	heap.Fix(&e.sessions, n.expiryIndex)
}

// take picks up to count sessions that were not told yet, for a drain. They keep a grace period like any other.
func (e *expiry) take(count int) []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	var taken []*session
	for _, n := range append(leaveHeap(nil), e.sessions...) {
		if len(taken) == count {
			break
		}
		if !n.told {
			e.tellLocked(n, now)
			taken = append(taken, n)
		}
	}
	return taken
}

func (e *expiry) all() []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*session(nil), e.sessions...)
}

// expireSessions tells sessions to leave at the end of their lifetime, and cuts those off that stay.
func (s *Server) expireSessions(ctx context.Context) {
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			told, over := s.expiry.due(now)
			for _, n := range told {
				s.pushes.start(n, n.leave)
			}
			for _, n := range over {
				n.stream.abort()
			}
		}
	}
}

// leave asks the client to go: pushes end, records are still taken and acknowledged. A session that was replaced gets no
// done_sending; its end comes all the same. It is sent there after all when the client has to come back under a new key.
func (n *session) leave() {
	n.mu.Lock()
	tell := !n.left && !n.over && (!n.replaced || n.rekeyed)
	n.left = n.left || tell
	n.mu.Unlock()
	if !tell {
		return
	}
	n.recordEnd(false) // before the client hears of it and begins another session, maybe elsewhere
	if err := n.sayDone(); err != nil {
		n.stream.abort()
	}
}

// leaveHeap orders sessions by leaveAt, the earliest first.
type leaveHeap []*session

func (h leaveHeap) Len() int           { return len(h) }
func (h leaveHeap) Less(i, j int) bool { return h[i].leaveAt.Before(h[j].leaveAt) }
func (h leaveHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].expiryIndex, h[j].expiryIndex = i, j
}

func (h *leaveHeap) Push(x any) {
	n := x.(*session)
	n.expiryIndex = len(*h)
	*h = append(*h, n)
}

func (h *leaveHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	n.expiryIndex = -1
	return n
}
