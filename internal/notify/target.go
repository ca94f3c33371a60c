package notify

import (
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
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
	broadcasts bool
	sending    bool // a sender takes what waits
	used       time.Time
	failures   int // in a row
	retryAt    time.Time
	idle       *time.Timer // of the line, while nothing is sent; nil before the first

	// Owned by the sender, and while there is none guarded by Client.mu.
	line        *line // nil when there is none
	singleUntil time.Time
}

// load is what one request carries.
type load struct {
	wake        []identity.ClientID
	blacklisted []identity.ClientID
	broadcasts  bool
}

// size is the number of hints.
func (l load) size() int {
	n := len(l.wake) + len(l.blacklisted)
	if l.broadcasts {
		n++
	}
	return n
}

func (t *target) loaded() bool { return len(t.waiting) > 0 || t.broadcasts }

// take removes what the next request carries.
func (t *target) take() load {
	l := load{broadcasts: t.broadcasts}
	t.broadcasts = false
	taken := 0
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
