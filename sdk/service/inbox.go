package service

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// inboxSize is how many messages wait for Receive before no more are read: what is read counts as delivered, and is
	// lost when the program ends.
	inboxSize = 16
	// freeBytes is how much memory received messages take, in bytes, before reading on for the sake of acknowledgements
	// becomes slow. An agent that is kept waiting gathers acknowledgements, so that fewer messages have to be read for each.
	freeBytes = 1 << 20
	// inboxBytes is how much they may take at all. Nothing is read then, and who waits for acknowledgements gets
	// ErrInboxFull.
	inboxBytes = 64 << 20
	// hesitation is the time between two messages when reading is slow. It doubles with each hesitationStep, to 3 s in the
	// end, so that there is a pace at which as much is read as the slowest server lets the program answer.
	hesitation     = 100 * time.Microsecond
	hesitationStep = 4 << 20
	// messageOverhead is what a message in memory takes besides its contents, in bytes, about.
	messageOverhead = 512
)

// never is the pace of a reader that has to wait until something else happens.
const never time.Duration = -1

// inbox holds the messages of the agent until they are received, in order. The reader of a connection asks it before it
// reads, so that what is read always finds its place.
type inbox struct {
	arrived chan struct{} // has room for one: something may be taken
	taken   chan struct{} // has room for one: something was

	mu       sync.Mutex
	messages []*fspb.Message
	bytes    int
	full     chan struct{} // closed while inboxBytes are reached
}

func newInbox() *inbox {
	return &inbox{arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1), full: make(chan struct{})}
}

// pace is how long to wait before another message is read. urgent says that what comes behind it is waited for: on a
// connection acknowledgements come behind messages, which have to be read first whether or not the program receives them.
func (i *inbox) pace(urgent bool) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case len(i.messages) < inboxSize:
		return 0
	case !urgent || i.bytes >= inboxBytes:
		return never
	case i.bytes < freeBytes:
		return 0
	}
	return hesitation << (i.bytes / hesitationStep)
}

// put adds a message.
func (i *inbox) put(m *fspb.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.messages = append(i.messages, m)
	before := i.bytes
	i.bytes += sizeInMemory(m)
	if before < inboxBytes && i.bytes >= inboxBytes {
		close(i.full)
	}
	signal(i.arrived)
}

// take returns the next message, or nil when there is none.
func (i *inbox) take() *fspb.Message {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.messages) == 0 {
		return nil
	}
	m := i.messages[0]
	i.messages[0] = nil // it is the program's now
	i.messages = i.messages[1:]
	before := i.bytes
	i.bytes -= sizeInMemory(m)
	if before >= inboxBytes && i.bytes < inboxBytes {
		i.full = make(chan struct{})
	}
	if len(i.messages) > 0 {
		signal(i.arrived) // somebody else may wait, too
	}
	signal(i.taken)
	return m
}

// fullness is closed when no acknowledgement is read any more until something is taken.
func (i *inbox) fullness() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.full
}

func sizeInMemory(m *fspb.Message) int { return proto.Size(m) + messageOverhead }

// signal leaves a token in a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
