package resume

import (
	"crypto/tls"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// maxServers is for how many servers a Cache keeps a ticket, the newest.
const maxServers = 32

// Cache keeps the TLS session tickets of one client, with what is known of them. The zero value is empty. Its methods are safe
// for concurrent use.
type Cache struct {
	mu      sync.Mutex
	shared  bool    // servers open each other's tickets
	entries []entry // by server, the one that was put last at the end
}

// entry is the ticket for a server.
type entry struct {
	server    string
	state     *tls.ClientSessionState
	protected time.Time // when ML-KEM last had its part in a session that led to it; zero: never
}

// Learn takes what a server says of itself in a response.
func (c *Cache) Learn(response http.Header) {
	shared := wire.HasFeature(response, wire.FeatureSharedTickets)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared = shared
}

// mayBeLight says whether the handshake with a server may be a light one, and when ML-KEM protected its ticket.
func (c *Cache) mayBeLight(server string) (protected time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.indexLocked(server)
	if i < 0 || !c.shared || c.entries[i].protected.IsZero() {
		return time.Time{}, false
	}
	age := wallClock().Sub(c.entries[i].protected)
	return c.entries[i].protected, 0 <= age && age < MaxChain
}

func (c *Cache) get(server string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.indexLocked(server)
	if i < 0 {
		return nil, false
	}
	return c.entries[i].state, true
}

// put keeps a ticket in place of the one before, or forgets that if state is nil.
func (c *Cache) put(server string, state *tls.ClientSessionState, protected time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.indexLocked(server); i >= 0 {
		c.entries = slices.Delete(c.entries, i, i+1)
	}
	if state == nil {
		return
	}
	if len(c.entries) == maxServers {
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	c.entries = append(c.entries, entry{server, state, protected})
}

func (c *Cache) indexLocked(server string) int {
	return slices.IndexFunc(c.entries, func(e entry) bool { return e.server == server })
}

// tickets is a Cache as one connection sees it: what comes by it inherits its protection.
type tickets struct {
	cache     *Cache
	asked     bool      // for a ticket: there was a handshake
	protected time.Time // set before the connection is read from
}

func (t *tickets) Get(server string) (*tls.ClientSessionState, bool) {
	t.asked = true
	return t.cache.get(server)
}

func (t *tickets) Put(server string, state *tls.ClientSessionState) {
	t.cache.put(server, state, t.protected)
}

// failed forgets the ticket when a handshake failed, whether the library has offered it or not, so that the next one is in full.
// A server that was not even reached says nothing of it.
func (t *tickets) failed(server string) {
	if t.asked {
		t.cache.put(server, nil, time.Time{})
	}
}
