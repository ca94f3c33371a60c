package server

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// firstByteTimeout bounds the silence between request and record 0.
	firstByteTimeout = 30 * time.Second
	// pushTimeout and pushRate bound one write to a session: a constant, plus the time of a very slow line.
	pushTimeout = 30 * time.Second
	pushRate    = 16 << 10 // bytes a second
	// endTimeout bounds how long the end of a session waits to be written to the store.
	endTimeout = 5 * time.Second
	// freeMembers is how many goroutines wait for the next session that wakes up or is written to. Each has a stack of up to
	// 16 KiB while there is much to do.
	freeMembers = 64
)

// session is one live streaming connection.
//
// The goroutine that runs it owns its reading side; while nothing arrives there is none (park.go). Acknowledgements are
// written by that goroutine, pushes by short-lived ones; writing keeps them apart.
type session struct {
	// Static after construction.
	server  *Server
	id      identity.ClientID
	key     []byte // public key of the client, PKIX DER
	stream  stream
	address string
	memory  wire.Memory // for its records
	order   uint64      // of the sessions of this server: a later one has a higher number

	// parkable says that whatever was read from the stream and not used is still in the stream. It is not so below a
	// decompressor, which reads ahead.
	parkable bool

	nonce uint64 // set before the session is in the registry, static from then on

	// Owned by the reading goroutine, and by none while the session is parked.
	source  *pacedReader
	records *wire.RecordReader
	index   uint64 // of the last record that was acknowledged; record 0 does not count
	live    bool   // the first exchange is over

	// Guarded by expiry.mu.
	expiryIndex int
	leaveAt     time.Time // done_sending; the end follows leaveGrace later
	told        bool      // the next thing due is its end: it is still opening, or done_sending was due

	writing sync.Mutex // held while a record is written
	closed  bool       // guarded by writing: the stream takes no more

	// Guarded by mu.
	mu          sync.Mutex
	opening     *opening // nil once record 0 was answered: nothing may be pushed before
	replaced    bool     // the client has a newer session, which gets the pushes
	left        bool     // told to leave by done_sending
	over        bool     // its reading side has ended
	broken      bool     // it has ended, and neither side meant it to
	fresh       bool     // its contact registered the client
	blacklisted bool
	rekeyed     bool // the rekey request of this session was sent
	phase       fetchPhase
	turn        uint64   // counts fetches, so that one that was given up is told from its successor
	again       bool     // marked while a fetch was under way
	starved     bool     // the last fetch left messages behind for want of tokens
	behind      bool     // the last fetch failed or did not begin: what waits may go before whatever comes
	asked       []string // services that the last fetch asked for; nil when that was all of them
	handed      int64    // the highest number of a message that it was handed: what was asked for and is older went out before
	contact     int64    // when it began, in microseconds of the store's clock: Client.LastContact
	seen        uint64   // number of the last broadcast that it was offered
	labels      []store.Label
	tokens      wire.Tokens
	ledger      ledger
}

func (s *Server) newSession(transport stream, encoding wire.Encoding, p peer) *session {
	return &session{
		server: s, id: p.ID, key: p.SPKI, stream: transport, address: p.address, memory: s.memoryFor(p), order: s.sessionOrder.Add(1),
		parkable: encoding == wire.EncodingNone,
		opening:  &opening{}, phase: fetchBusy,
	}
}

// run carries a session as far as step does, and does what has to follow its end. A panic costs this session only (G-01).
func (n *session) run(step func() (parked bool)) {
	defer n.server.cfg.Worked()
	parked := false
	defer func() {
		if parked {
			return // it belongs to whoever resumes it
		}
		if cause := recover(); cause != nil {
			n.contain(cause)
			n.cut()
		}
		n.depart()
	}()
	parked = step()
}

// contain counts and logs a panic, which is a bug.
func (n *session) contain(cause any) {
	n.server.metrics.panics.Inc()
	glog.Errorf("panic in the session of client %s at %s: %v\n%s", n.id, n.address, cause, debug.Stack())
}

// proceed reads records until the session is parked or ends.
func (n *session) proceed() (parked bool) {
	err := n.readRecords()
	switch {
	case errors.Is(err, errParked):
		return true
	case err == nil || errors.Is(err, io.EOF):
		n.finish()
	default:
		n.server.metrics.ended.WithLabelValues(endReason(err)).Inc()
		glog.V(1).Infof("session of client %s at %s: %v", n.id, n.address, err)
		n.cut()
	}
	return false
}

// resume is called by the poller, which it must not hold up, when a parked session has something to read.
func (n *session) resume() {
	n.server.crew.Start(func() { n.run(n.proceed) }) // Run waits for it through work, which counts the session
}

// depart forgets the session. It is the last that happens to one.
func (n *session) depart() {
	if n.live {
		n.server.registry.remove(n)
		n.letGo()
	}
	if n.records != nil {
		_ = n.records.Close() // gives a decompressor back; it cannot fail otherwise
	}
	n.server.expiry.remove(n)
	n.abandonOpening()
	n.giveBack()
	n.server.work.Done()
}

// takesMessagesLocked says whether the session may be pushed to once it is open. Records are read and acknowledged even when
// not.
func (n *session) takesMessagesLocked() bool {
	return !n.replaced && !n.left && !n.over && !n.blacklisted
}

// replace ends the pushes to the session because its client has a newer one.
func (n *session) replace() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.replaced = true
}

// crowdOut cuts the session off because its client has too many.
func (n *session) crowdOut() {
	if n.ended() {
		return
	}
	n.server.metrics.refused.WithLabelValues("sessions").Inc()
	n.endPushes(true)
	n.stream.abort()
}

// finish ends the session in order. What is being written is written to its end or its deadline first.
func (n *session) finish() {
	n.endPushes(false)
	n.writing.Lock()
	defer n.writing.Unlock()
	n.closed = true
	n.stream.finish()
}

// cut ends the session at once, whatever is being written.
func (n *session) cut() {
	n.endPushes(true)
	n.stream.abort()
	n.writing.Lock()
	defer n.writing.Unlock()
	n.closed = true
	n.stream.close()
}

// endPushes ends the pushes. A client that was told to leave does so as it likes: it has what was pushed, and acknowledges
// that in its next session.
func (n *session) endPushes(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	n.broken = cut && !n.left
}

// ended says that the reading side of the session has ended.
func (n *session) ended() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.over
}

// letGo says that the session ended, and tells the store when its client has none here any more.
func (n *session) letGo() {
	if !n.server.registry.release(n) {
		return
	}
	n.mu.Lock()
	broken := n.broken
	n.mu.Unlock()
	n.recordEnd(broken)
}
