package agent

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// grantedTokens is how many messages a service lets the server have under way to it.
	grantedTokens = 100
	// maxInboxMessages is what an inbox holds. Broadcasts cost no tokens, so that there can be more than the granted; a
	// message beyond this is dropped without an answer, and the server sends it again later.
	maxInboxMessages = 256
	// maxInboxBytes bounds the same in memory.
	maxInboxBytes = 64 << 20
	// beaconEvery is after how many messages tokens go back to the server without waiting for a record to travel on.
	beaconEvery = 32
)

// inbox is the queue in front of one service. It belongs to the service's name and stays when the service is restarted, so
// that neither messages nor counters are lost with an instance (G-24, G-62).
type inbox struct {
	// signal holds a token when the queue is not empty.
	signal chan struct{}

	mu    sync.Mutex
	queue []*delivery
	bytes int
	room  chan struct{} // closed and replaced when something is taken; nil while nobody waits

	// Messages from the server, ever. Their difference is what occupies granted tokens; local messages cost none.
	admitted uint64
	taken    uint64
}

// delivery is a message in an inbox.
type delivery struct {
	message *fspb.Message
	size    int
	local   bool // from a service of this agent
}

func newDelivery(m *fspb.Message, local bool) *delivery {
	return &delivery{message: m, size: proto.Size(m), local: local}
}

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

// offer queues a message from the server. When there is no room the message is refused, and its token returned.
func (b *inbox) offer(d *delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.admitted++
	if !b.fitsLocked(d) {
		b.taken++
		return false
	}
	b.pushLocked(d)
	return true
}

// skip accounts for a message from the server that needs no processing.
func (b *inbox) skip() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.admitted++
	b.taken++
}

// put queues a local message, waiting for room until ctx ends.
func (b *inbox) put(ctx context.Context, d *delivery) error {
	for {
		room := b.tryPut(d)
		if room == nil {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *inbox) tryPut(d *delivery) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fitsLocked(d) {
		b.pushLocked(d)
		return nil
	}
	if b.room == nil {
		b.room = make(chan struct{})
	}
	return b.room
}

func (b *inbox) fitsLocked(d *delivery) bool {
	return len(b.queue) == 0 || len(b.queue) < maxInboxMessages && b.bytes+d.size <= maxInboxBytes
}

func (b *inbox) pushLocked(d *delivery) {
	b.queue = append(b.queue, d)
	b.bytes += d.size
	b.wake()
}

func (b *inbox) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// take waits for the next message until ctx ends. beacon says that so many tokens gathered that they had better go back.
func (b *inbox) take(ctx context.Context) (d *delivery, beacon bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if d, beacon := b.pop(); d != nil {
			return d, beacon, nil
		}
		select {
		case <-b.signal:
		case <-ctx.Done():
		}
	}
}

func (b *inbox) pop() (d *delivery, beacon bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil, false
	}
	d = b.queue[0]
	b.queue[0] = nil
	b.queue = b.queue[1:]
	b.bytes -= d.size
	if len(b.queue) > 0 {
		b.wake()
	} else {
		b.queue = nil
	}
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
	if d.local {
		return d, false
	}
	b.taken++
	return d, b.taken%beaconEvery == 0
}

// drain empties the inbox of a service that is gone and returns what was in it.
func (b *inbox) drain() []*delivery {
	var out []*delivery
	for {
		d, _ := b.pop()
		if d == nil {
			return out
		}
		out = append(out, d)
	}
}

// counts returns the messages of the server admitted to the inbox and taken from it, ever.
func (b *inbox) counts() (admitted, taken uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.admitted, b.taken
}

func (b *inbox) depth() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}
