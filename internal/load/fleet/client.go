package fleet

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/resume"
)

// client is one simulated agent.
type client struct {
	// Static after construction.
	fleet *Fleet
	index int

	// Guarded by mu.
	mu       sync.Mutex
	online   bool // it is to be connected
	pending  bool // it is in line to be dialed, or being dialed
	failures int  // in a row: dials, and sessions that ended before their time
	misses   int  // dials that failed since the last session
	link     *link
	tickets  *resume.Cache // nil unless sessions are resumed
	nonce    uint64
	sent     uint64  // messages that were acknowledged: the number of the next one
	out      *outbox // nil while there is nothing to send and nothing in flight
}

// How agents connect again; the figures are internal/agent's. Those of a Job are its defaults.
const (
	// provenAfter is how long a session has to last to count as a success of the server.
	provenAfter = 10 * time.Second
	// rotationDelay is the longest wait after one that ended in order.
	rotationDelay = 500 * time.Millisecond
	// failureGrowth is by how much the bound of waits grows with each failure in a row.
	failureGrowth = 1.5
)

// errFarewell is the orderly end of a session that the server asked for.
var errFarewell = errors.New("the server asked to leave")

// wantOnline says whether the client is to be connected.
func (c *client) wantOnline(online bool) {
	c.mu.Lock()
	c.online = online
	begin := online && !c.pending && c.link == nil
	c.pending = c.pending || begin
	l := c.link
	c.mu.Unlock()
	switch {
	case begin:
		c.fleet.enqueue(c)
	case !online && l != nil:
		l.close()
	}
}

func (c *client) isOnline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.online
}

// beginDial returns what is needed for a dial, or false when the client is not wanted online any more.
func (c *client) beginDial() (server string, record []byte, tickets *resume.Cache, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.online {
		c.pending = false
		return "", nil, nil, false
	}
	job := &c.fleet.job
	return job.Servers[(c.index+c.misses)%len(job.Servers)], c.firstRecord(), c.ticketCache(), true
}

// ticketCache is where the client keeps its TLS session ticket, or nil.
func (c *client) ticketCache() *resume.Cache {
	if !c.fleet.job.Resume {
		return nil
	}
	if c.tickets == nil {
		c.tickets = new(resume.Cache)
	}
	return c.tickets
}

// firstRecord opens the stream: it grants all tokens and carries no messages.
func (c *client) firstRecord() []byte {
	if c.out != nil {
		c.out.returned = 0
	}
	first := contact{
		nonce:  c.nonce,
		tokens: []tokenGrant{{systemService, inboxSize}, {c.fleet.job.Service, inboxSize}},
		labels: c.fleet.job.Labels,
	}
	return first.start()
}

// dialFailed returns how long to wait before the next try, or false when there is none.
func (c *client) dialFailed() (wait time.Duration, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.misses++
	c.pending = c.online
	return c.backOff(), c.online
}

// backOff returns how long to wait after one more failure: at random, up to a bound that grows. It is called with the lock held.
func (c *client) backOff() time.Duration {
	job := &c.fleet.job
	most := min(float64(job.ReconnectMin)*math.Pow(failureGrowth, float64(c.failures)), float64(job.ReconnectMax))
	c.failures++
	return rand.N(time.Duration(most) + 1)
}

// attach gives the client its session.
func (c *client) attach(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = false
	if !c.online {
		return false
	}
	c.link, c.misses = l, 0
	return true
}

// detach takes the session away and returns what was in flight to the queue. It says whether to connect again, and after how
// long: a session that lasted makes good the failures before it, and is none itself if the server asked for its end.
func (c *client) detach(l *link, orderly bool) (wait time.Duration, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = nil
	if c.out != nil {
		c.out.requeue()
	}
	c.pending = c.online
	proven := time.Since(l.began) >= provenAfter
	if proven {
		c.failures = 0
	}
	if proven && orderly {
		return rand.N(rotationDelay), c.online
	}
	return c.backOff(), c.online
}

// read takes the records of a session until it ends.
func (c *client) read(l *link) error {
	record := l.first
	l.first = nil
	for {
		err := c.take(l, record.Bytes())
		record.Release()
		if err != nil {
			return err
		}
		if record, err = l.records.Next(); err != nil {
			return err
		}
	}
}

// take handles one record of the server and sends what it makes possible.
func (c *client) take(l *link, body []byte) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, err := parseReply(body, func(m received) error {
		c.receive(now, l.began, m)
		return nil
	})
	if err != nil {
		return err
	}
	if answer.nonce != 0 {
		c.nonce = answer.nonce
	}
	if answer.ackIndex != 0 {
		c.acknowledged(l, now, answer.ackIndex)
	}
	l.leaving = l.leaving || answer.farewell
	if err := c.flush(l); err != nil {
		return err
	}
	if l.leaving && (c.out == nil || len(c.out.flights) == 0) {
		c.fleet.meters.add(Farewells, 1)
		return errFarewell
	}
	return nil
}

// receive counts a message and remembers to acknowledge it.
func (c *client) receive(now, began time.Time, m received) {
	f := c.fleet
	out := c.outbox()
	if id, err := identity.MessageIDFromBytes(m.id); err == nil {
		out.acks = append(out.acks, id)
	}
	if string(m.service) == f.job.Service {
		out.returned++
	}
	if ours := f.meters.arrived(now, began, c.index, m.payload); ours {
		c.replyLater()
	}
	if f.job.AckDelay > 0 && !out.held {
		out.held = true
		time.AfterFunc(f.job.AckDelay, c.release) // a late one finds nothing to do
	}
}

// release sends the acknowledgements that were held back.
func (c *client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil {
		c.out.held = false
	}
	c.flushOrClose()
}

// flushOrClose is flush for those who do not read the session; its reader notices the end.
func (c *client) flushOrClose() {
	if c.link == nil {
		return
	}
	if err := c.flush(c.link); err != nil {
		c.link.close()
	}
}

// acknowledged releases the oldest record in flight.
func (c *client) acknowledged(l *link, now time.Time, index uint64) {
	meters := c.fleet.meters
	l.acks++
	if index != l.acks {
		meters.add(Misordered, 1)
	}
	if c.out == nil || len(c.out.flights) == 0 {
		meters.add(Misordered, 1)
		return
	}
	done := c.out.land()
	meters.acknowledged(now, c.out.times[:done.messages])
	c.out.times = c.out.times[done.messages:]
	c.sent += uint64(done.messages)
	meters.add(Acked, done.messages)
	meters.add(AcksTaken, len(done.acks))
}

// outbox returns the client's outbox, made when it is needed.
func (c *client) outbox() *outbox {
	if c.out == nil {
		c.out = outboxes.Get().(*outbox)
	}
	return c.out
}
