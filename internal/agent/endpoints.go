package agent

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxRetryAfter bounds how long a server can send the agent away.
const maxRetryAfter = 30 * time.Minute

// endpoint is one server address.
type endpoint struct {
	address   string    // host:port
	notBefore time.Time // the server asked for peace until then; guarded by endpoints.mu
	plain     bool      // the server takes no compressed bodies; of the communicator's goroutine
}

// errNoServerReady says that each server asked to be left alone for now.
var errNoServerReady = errors.New("no server may be tried yet")

// endpoints are the configured servers in the order in which they are tried: the last good one, then the others, shuffled.
// The communicator keeps the order; files are fetched in the same.
type endpoints struct {
	mu   sync.Mutex
	list []*endpoint
	good bool // list[0] served the last contact
}

func newEndpoints(addresses []string) *endpoints {
	e := &endpoints{}
	for _, address := range addresses {
		e.list = append(e.list, &endpoint{address: address})
	}
	e.shuffleLocked()
	return e
}

// shuffleLocked gives those that are not known to be good a new order, so that a fleet does not try them in step.
func (e *endpoints) shuffleLocked() {
	rest := e.list
	if e.good {
		rest = rest[1:]
	}
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
}

// ready returns those that may be tried now, in order.
func (e *endpoints) ready(now time.Time) []*endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*endpoint
	for _, p := range e.list {
		if !p.notBefore.After(now) {
			out = append(out, p)
		}
	}
	return out
}

// nextReady returns how long it takes until one may be tried.
func (e *endpoints) nextReady(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := slices.MinFunc(e.list, func(a, b *endpoint) int { return a.notBefore.Compare(b.notBefore) })
	return max(0, first.notBefore.Sub(now))
}

// prefer puts the one that served a contact first.
func (e *endpoints) prefer(p *endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.list, p)
	e.list = slices.Insert(slices.Delete(e.list, i, i+1), 0, p)
	e.good = true
	p.notBefore = time.Time{}
}

// disappoint notes that the preferred one failed, and orders the next round anew.
func (e *endpoints) disappoint() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.good = false
	e.shuffleLocked()
}

// postpone keeps one from being tried before a time.
func (e *endpoints) postpone(p *endpoint, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p.notBefore = until
}

// retryAfter reads how long a response asks to be left alone: seconds or a date. Zero when it does not.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if value == "" {
		return 0
	}
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
