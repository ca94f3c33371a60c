package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/farspeak/farspeak/internal/crew"
	"github.com/farspeak/farspeak/internal/store"
)

// What bounds the writing to sessions: who does it, and how much it may hold.

// pushes are the short-lived tasks that write to sessions. They are started until the crew is closed.
type pushes struct{ crew *crew.Crew }

// start runs push in a goroutine. A panic of it ends the session, not the process (G-01). Nothing is started once the crew is
// closed: there are no sessions any more.
func (p pushes) start(n *session, push func()) {
	p.crew.Start(func() {
		defer func() {
			if cause := recover(); cause != nil {
				n.contain(cause)
				n.stream.abort() // the reader sees it and ends the session
			}
		}()
		push()
	})
}

// errNoPushMemory says that too much is on its way to slow clients already.
var errNoPushMemory = errors.New("no memory left for messages on their way to clients")

// messageOverhead is what a message holds besides its encoding.
const messageOverhead = 256

// pushMemory bounds the bytes of messages that were read from the store and are not written yet. A peer that does not read
// keeps its share until its deadline; the others have the rest, and what finds no room stays in the store.
type pushMemory struct {
	size int64
	room *semaphore.Weighted
	held atomic.Int64
}

func newPushMemory(size int64) *pushMemory {
	return &pushMemory{size: size, room: semaphore.NewWeighted(size)}
}

// tryTake takes room at once or not at all. What is larger than everything passes when nothing else is there.
func (m *pushMemory) tryTake(bytes int64) bool {
	bytes = min(bytes, m.size)
	if !m.room.TryAcquire(bytes) {
		return false
	}
	m.held.Add(bytes)
	return true
}

// take waits for room.
func (m *pushMemory) take(ctx context.Context, bytes int64) error {
	bytes = min(bytes, m.size)
	if err := m.room.Acquire(ctx, bytes); err != nil {
		return fmt.Errorf("%w: %w", errNoPushMemory, err)
	}
	m.held.Add(bytes)
	return nil
}

// give gives back what was taken.
func (m *pushMemory) give(bytes int64) {
	bytes = min(bytes, m.size)
	m.held.Add(-bytes)
	m.room.Release(bytes)
}

func (m *pushMemory) used() int64 { return m.held.Load() }

// weigh is what messages hold while they are written, the record that is made of them included.
func weigh(messages []*store.PendingMessage) int64 {
	bytes := 0
	for _, m := range messages {
		bytes += 2*len(m.Encoded) + messageOverhead
	}
	return int64(bytes)
}
