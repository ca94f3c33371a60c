package notify

import (
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Backoff of a server that failed: hints for it are dropped for so long, at no cost to whoever gives them (G-33).
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// singleFor is how long a server that does not know the batched form gets the original's.
const singleFor = 10 * time.Minute

// hintKind says what is hinted of a client; kinds add up.
type hintKind uint8

const (
	hintWake hintKind = 1 << iota
	hintBlacklisted
)

// target is one server and what waits for it.
type target struct {
	address string

	// Guarded by Client.mu.
	waiting    map[identity.ClientID]hintKind
	handovers  handoverQueue
	broadcasts bool
	sending    bool // a sender takes what waits
	used       time.Time
	failures   int // in a row
	retryAt    time.Time
	idle       *time.Timer // of the line, while nothing is sent; nil before the first

	// Owned by the sender, and while there is none guarded by Client.mu.
	line        *line // nil when there is none
	singleUntil time.Time
	key         []byte    // under which it is handed messages; nil while it is not known
	askKeyAt    time.Time // when it may be asked for next
}

// load is what one request carries.
type load struct {
	wake        []identity.ClientID
	blacklisted []identity.ClientID
	broadcasts  bool
	handovers   []*store.Handover
	handed      []identity.ClientID // the clients of handovers, none of which is in wake
	hinted      int                 // handovers that were left out because their client is woken anyway
}

// size is the number of hints. A client with messages is one.
func (l load) size() int {
	n := len(l.wake) + len(l.blacklisted) + len(l.handed)
	if l.broadcasts {
		n++
	}
	return n
}

func (t *target) loaded() bool {
	return len(t.waiting) > 0 || t.broadcasts || len(t.handovers.waiting) > 0
}

// take removes what the next request carries.
func (t *target) take() load {
	l := load{broadcasts: t.broadcasts}
	t.broadcasts = false
	t.takeHandovers(&l)
	taken := len(l.handed)
	for id, kind := range t.waiting {
		if taken == MaxBatchIDs {
			return l
		}
		taken++
		if kind&hintWake != 0 {
			l.wake = append(l.wake, id)
		}
		if kind&hintBlacklisted != 0 {
			l.blacklisted = append(l.blacklisted, id)
		}
		delete(t.waiting, id)
	}
	t.waiting = nil // a map keeps the room it once needed
	return l
}

// takeHandovers leaves out the messages of clients that are to be woken: the look-up that finds what the hint stands for finds
// them, too. And who gets messages is not looked up, so the hint would be lost if it came with them.
func (t *target) takeHandovers(l *load) {
	if len(t.handovers.waiting) == 0 {
		return
	}
	all := t.handovers.take()
	l.handovers = slices.DeleteFunc(all, func(h *store.Handover) bool {
		return t.waiting[h.Message.ClientID]&hintWake != 0
	})
	l.hinted = len(all) - len(l.handovers)
	l.handed = clientsOf(l.handovers)
}

// succeeded ends a backoff.
func (t *target) succeeded() {
	t.failures = 0
	t.retryAt = time.Time{}
}

// failed begins or lengthens the backoff, with jitter so that many senders do not return at once.
func (t *target) failed(now time.Time) {
	t.failures++
	wait := min(minBackoff<<min(t.failures-1, 16), maxBackoff)
	t.retryAt = now.Add(wait/2 + rand.N(wait/2))
}

// usable says whether an address has the form host:port and no more: it becomes the host of a URL.
func usable(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || len(address) > 300 {
		return false
	}
	u, err := url.Parse("http://" + address)
	return err == nil && u.Host == address && u.Path == "" && u.User == nil && host != ""
}
