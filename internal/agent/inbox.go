package agent

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// grantedTokens is how many messages a service lets the server have under way to it.
	grantedTokens = 100
	// maxInboxMessages is what an inbox holds of the server's messages. Broadcasts cost no tokens, so that there can be more
	// than the granted; a message beyond this is dropped without an answer, and the server sends it again later.
	maxInboxMessages = 256
	// maxInboxBytes bounds the same in memory. Tokens are granted with regard to it; a message for which it leaves no room
	// all the same waits outside.
	maxInboxBytes = 64 << 20
	// Bounds of what services of this agent have sent. It costs no tokens; who sends more waits.
	maxLocalMessages = 100
	maxLocalBytes    = 16 << 20
	// beaconEvery is after how many messages tokens go back to the server without waiting for a record to travel on.
	beaconEvery = 32
)

// inbox is the queue in front of one service. It belongs to the service's name and stays when the service is restarted, so
// that neither messages nor counters are lost with an instance (G-24, G-62).
type inbox struct {
	// signal holds a token when the queue is not empty.
	signal chan struct{}

	mu     sync.Mutex
	queue  []*delivery
	remote load          // of those from the server
	local  load          // of those from services of this agent
	common int           // bytes that a message from the server may well have: the largest of late
	room   chan struct{} // closed and replaced when something is taken; nil while nobody waits

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

// errInboxFull says that a service has more messages waiting than were granted.
var errInboxFull = errors.New("the service's inbox is full; the server will repeat it")

// offer queues a message from the server. Where there is no room for its bytes it returns the channel that is closed when
// it is worth another try. One message too many is refused, and its token returned.
func (b *inbox) offer(d *delivery) (room <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.remote.messages >= maxInboxMessages:
		b.admitted++
		b.taken++
		return nil, errInboxFull
	case b.remote.messages > 0 && b.remote.bytes+d.size > maxInboxBytes:
		return b.roomLocked(), nil
	}
	b.admitted++
	b.common = max(d.size, b.common-b.common/16)
	b.pushLocked(d)
	return nil, nil
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
	if b.local.messages == 0 || b.local.messages < maxLocalMessages && b.local.bytes+d.size <= maxLocalBytes {
		b.pushLocked(d)
		return nil
	}
	return b.roomLocked()
}

func (b *inbox) roomLocked() <-chan struct{} {
	if b.room == nil {
		b.room = make(chan struct{})
	}
	return b.room
}

func (b *inbox) pushLocked(d *delivery) {
	b.queue = append(b.queue, d)
	b.shareLocked(d).add(d.size)
	b.wake()
}

// shareLocked is the load of which a message is a part.
func (b *inbox) shareLocked(d *delivery) *load {
	if d.local {
		return &b.local
	}
	return &b.remote
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
	b.shareLocked(d).remove(d.size)
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

// account returns how many messages of the server were admitted, ever, and how many more the server may have under way:
// no more than there are tokens, and than there is room for if they are like those of late.
func (b *inbox) account() (admitted, spare uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tokens := grantedTokens - min(b.remote.messages, grantedTokens)
	if b.common > 0 {
		fit := (maxInboxBytes - b.remote.bytes) / b.common
		if b.remote.messages == 0 {
			fit = max(fit, 1) // of any size
		}
		tokens = min(tokens, max(fit, 0))
	}
	return b.admitted, uint64(tokens)
}

func (b *inbox) depth() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}
