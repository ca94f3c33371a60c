package service

import "sync"

// Bounds of what one connection may have unacknowledged. While they are reached nothing more is read from the process, so
// that one which does not read its acknowledgements holds up itself and nobody else (G-61).
const (
	maxUnacknowledged      = 1000
	maxUnacknowledgedBytes = 1 << 20 // of IDs
)

// manyAcks is how many do not wait for others to gather: a process of the original has no more than 100 under way.
const manyAcks = 50

// maxAckBytes is the size of the IDs in one LocalAck, which has to fit a message of the protocol.
const maxAckBytes = 256 << 10

// ackBook keeps the IDs of a connection's messages from when they are sent until the process was told that the server has
// them. None of its methods blocks but expect.
type ackBook struct {
	waiting chan struct{} // holds a token when there is something to take

	mu       sync.Mutex
	accepted [][]byte // by the server; not taken yet
	count    int      // expected, accepted and taken
	bytes    int
	room     chan struct{} // closed and replaced when something is forgotten; nil while nobody waits
	ended    bool
}

func newAckBook() *ackBook { return &ackBook{waiting: make(chan struct{}, 1)} }

// expect makes room for an ID, and waits for it until the process is told of others, or cannot be told any more.
func (a *ackBook) expect(id []byte) {
	for {
		room := a.tryExpect(id)
		if room == nil {
			return
		}
		<-room
	}
}

func (a *ackBook) tryExpect(id []byte) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := a.count >= maxUnacknowledged || a.count > 0 && a.bytes+len(id) > maxUnacknowledgedBytes
	if full && !a.ended {
		if a.room == nil {
			a.room = make(chan struct{})
		}
		return a.room
	}
	a.count++
	a.bytes += len(id)
	return nil
}

// accept notes that the server has a message.
func (a *ackBook) accept(id []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return // a process that keeps its messages repeats this one
	}
	a.accepted = append(a.accepted, id)
	select {
	case a.waiting <- struct{}{}:
	default:
	}
}

// many reports whether there are so many to take that they should not wait for others.
func (a *ackBook) many() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.accepted) >= manyAcks
}

// take returns IDs for one LocalAck, or none when there are none.
func (a *ackBook) take() [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, size := 0, 0
	for n < len(a.accepted) && (n == 0 || size+len(a.accepted[n]) <= maxAckBytes) {
		size += len(a.accepted[n])
		n++
	}
	ids := a.accepted[:n:n]
	a.accepted = a.accepted[n:]
	return ids
}

// forget gives up the room of IDs.
func (a *ackBook) forget(ids ...[]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		a.count--
		a.bytes -= len(id)
	}
	a.announceLocked()
}

// end says that the process cannot be told of anything any more.
func (a *ackBook) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.accepted = true, nil
	a.announceLocked()
}

func (a *ackBook) announceLocked() {
	if a.room != nil {
		close(a.room)
		a.room = nil
	}
}
