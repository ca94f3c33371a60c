package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// recordTimeout bounds a record from its first byte to its acknowledgement, and the first exchange as a whole.
	recordTimeout = 3 * time.Minute
	// firstByteTimeout bounds the silence between request and record 0.
	firstByteTimeout = 30 * time.Second
	// pushTimeout and pushRate bound one write to a session: a constant, plus the time of a very slow line.
	pushTimeout = 30 * time.Second
	pushRate    = 16 << 10 // bytes a second
)

// session is one live streaming connection.
//
// The goroutine that runs it owns its reading side. Acknowledgements are written by that goroutine, pushes by short-lived
// ones; writing keeps them apart.
type session struct {
	// Static after construction.
	server  *Server
	id      identity.ClientID
	stream  stream
	address string
	key     []byte // PKIX DER; see checkMemory
	nonce   uint64

	// Guarded by expiry.mu.
	expiryIndex int
	leaveAt     time.Time // done_sending; the end follows leaveGrace later
	told        bool      // the next thing due is its end: it is still opening, or done_sending was due

	writing sync.Mutex // held while a record is written

	// Guarded by mu.
	mu          sync.Mutex
	opening     bool // record 0 was not answered yet: nothing may be pushed before
	phase       fetchPhase
	again       bool // marked while a fetch was under way
	starved     bool // the last fetch left messages behind for want of tokens
	silent      bool // no more pushes: replaced, told to leave, or over
	replaced    bool // silent because of a newer session, and for no other reason before
	left        bool // told to leave by done_sending
	blacklisted bool
	rekeyed     bool   // the rekey request of this session was sent
	seen        uint64 // number of the last broadcast that it was offered
	labels      []store.Label
	first       []*store.PendingMessage // went along with record 0; their attempts are still to be recorded
	tokens      wire.Tokens
}

// handleStream serves one session: POST /streaming-message.
func (s *Server) handleStream(w http.ResponseWriter, r *http.Request) {
	o := s.metrics.observePoll(pollTypeStreamStart)
	encoding, p, err := s.checkStream(r)
	if err != nil {
		s.refuseStream(err, r.RemoteAddr, o, func(refused *refusal) { refused.answer(w) })
		return
	}
	transport, err := openStream(w, r)
	if err != nil {
		s.refuseStream(failed("the connection cannot be taken over", err), r.RemoteAddr, o, func(*refusal) {})
		return
	}
	if !s.startWork() {
		transport.abort()
		return
	}
	serve := func() {
		defer s.work.Done()
		s.serveStream(transport, encoding, p, o)
	}
	if r.ProtoMajor >= 2 {
		serve()
		return
	}
	go serve() // on a fresh, small stack; Run waits for it through work
}

// startWork counts a new session, unless the server is past taking any.
func (s *Server) startWork() bool {
	s.admission.RLock()
	defer s.admission.RUnlock()
	if s.Draining() {
		return false
	}
	s.work.Add(1)
	return true
}

// checkStream does what can be answered before the body is read.
func (s *Server) checkStream(r *http.Request) (wire.Encoding, peer, error) {
	encoding, err := wire.DecodeEncoding(r.Header)
	if err != nil {
		return encoding, peer{}, encodingRefusal(err)
	}
	switch {
	case s.Draining():
		return encoding, peer{}, notReady(http.StatusServiceUnavailable)
	case r.Method != http.MethodPost:
		return encoding, peer{}, refuse(http.StatusBadRequest, "method", "%s is not supported here, use POST", r.Method)
	}
	p, err := s.authenticate(r)
	return encoding, p, err
}

func encodingRefusal(err error) *refusal {
	if errors.Is(err, wire.ErrUnsupportedEncoding) {
		return refuse(http.StatusUnsupportedMediaType, "encoding", "%v", err)
	}
	return refuse(http.StatusBadRequest, "encoding", "%v", err)
}

func (s *Server) refuseStream(err error, address string, o *pollObservation, answer func(*refusal)) {
	refused := asRefusal(err)
	o.done(refused.status)
	s.note(refused, address)
	answer(refused)
}

// serveStream runs one session from its first byte to its end.
func (s *Server) serveStream(transport stream, encoding wire.Encoding, p peer, o *pollObservation) {
	n := &session{server: s, id: p.ID, stream: transport, address: p.address, opening: true, phase: fetchBusy}
	defer n.containPanic()
	s.expiry.addOpening(n)
	defer s.expiry.remove(n)
	source := &pacedReader{stream: transport}
	reader, err := s.openRecords(source, encoding)
	if err == nil {
		defer reader.Close()
		if err = n.open(reader, p, o); err == nil {
			n.serve(source, reader)
			return
		}
	}
	if !errors.Is(err, errPeerGone) {
		s.refuseStream(err, p.address, o, func(refused *refusal) {
			_ = transport.SetWriteDeadline(time.Now().Add(pushTimeout))
			transport.refuse(refused)
		})
	}
	transport.finish()
}

// containPanic keeps a panic to the session that caused it (G-01).
func (n *session) containPanic() {
	if cause := recover(); cause != nil {
		n.server.metrics.panics.Inc()
		glog.Errorf("panic in the session of client %s at %s: %v\n%s", n.id, n.address, cause, debug.Stack())
		n.stream.abort()
	}
}

// errPeerGone says that the peer left or broke the transport, so that there is nobody to answer.
var errPeerGone = errors.New("the peer is gone")

// openRecords makes the record reader of a stream and checks the magic.
func (s *Server) openRecords(source *pacedReader, encoding wire.Encoding) (*wire.RecordReader, error) {
	if err := source.stream.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return nil, fmt.Errorf("%w: %w", errPeerGone, err)
	}
	body, err := wire.NewBody(source, encoding)
	if err != nil {
		return nil, encodingRefusal(err)
	}
	reader := wire.NewRecordReader(body, wire.FromClient(s.budget))
	if err := reader.ReadMagic(); err != nil {
		_ = reader.Close()
		return nil, readRefusal(err)
	}
	return reader, nil
}

// readRefusal tells what was wrong with the bytes of a peer, or that it left.
func readRefusal(err error) error {
	switch {
	case errors.Is(err, wire.ErrProtocol):
		return refuse(http.StatusBadRequest, "malformed", "%v", err)
	case errors.Is(err, wire.ErrBudget):
		return noMemory()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "timeout", "the record did not arrive in time")
	}
	return fmt.Errorf("%w: %w", errPeerGone, err)
}

// open is the first exchange: record 0, the contact, its messages, and the answer. On success the client is held in the
// registry.
func (n *session) open(reader *wire.RecordReader, p peer, o *pollObservation) error {
	ctx, cancel := context.WithTimeout(n.server.life, recordTimeout)
	defer cancel()
	raw, err := reader.Next()
	if err != nil {
		return readRefusal(err)
	}
	o.read(len(raw.Bytes()))
	rec, err := n.server.decode(raw.Bytes())
	raw.Release()
	if err != nil {
		return err
	}
	n.server.registry.hold(n)
	if err := n.admit(ctx, p, rec, o); err != nil {
		n.letGo()
		return err
	}
	return nil
}

// admit records the contact, takes the messages of record 0 and answers it. The session is in the registry before its
// queue is read, so that whatever arrives in between marks it.
func (n *session) admit(ctx context.Context, p peer, rec record, o *pollObservation) error {
	s := n.server
	n.key = p.SPKI
	if s.Draining() {
		return notReady(http.StatusServiceUnavailable)
	}
	client, nonce, err := s.recordContact(ctx, p, rec, s.cfg.Address)
	if err != nil {
		return err
	}
	n.nonce, n.labels, n.blacklisted = nonce, client.Labels, client.Blacklisted
	n.tokens.Start(rec.data.AllowedMessages)
	if err := s.ingest(ctx, n.sender(), rec); err != nil {
		return failed("the messages cannot be processed", err)
	}
	if replaced := s.registry.add(n); replaced != nil {
		replaced.replace()
		s.metrics.replaced.Inc()
	}
	if err := n.answer(ctx, o); err != nil {
		s.registry.remove(n)
		return fmt.Errorf("%w: %w", errPeerGone, err)
	}
	return nil
}

// letGo undoes hold, and tells the store when the client has no session here any more.
func (n *session) letGo() {
	s := n.server
	if !s.registry.release(n) {
		return
	}
	end := contactEvent{end: &store.SessionEnd{ClientID: n.id, StreamingTo: s.cfg.Address}}
	if err := s.contacts.DoAsync(end, func(store.ContactOutcome, error) {}); err != nil {
		s.metrics.lostEnds.Inc() // the next contact overwrites what stays behind
	}
}

func (n *session) sender() sender {
	n.mu.Lock()
	defer n.mu.Unlock()
	return sender{id: n.id, labels: n.labels, blacklisted: n.blacklisted}
}

// serve is a session after its first exchange: it takes pushes from now on, reads until the end, and leaves.
func (n *session) serve(source *pacedReader, reader *wire.RecordReader) {
	s := n.server
	defer n.letGo()
	defer s.registry.remove(n)
	s.expiry.live(n, s.lifetime())
	if s.Draining() { // it opened while the others were told
		s.pushes.Go(n.leave)
	}
	n.opened()

	err := n.readRecords(source, reader)
	n.silence()
	switch {
	case err == nil || errors.Is(err, io.EOF):
		n.stream.finish()
	default:
		s.metrics.ended.WithLabelValues(endReason(err)).Inc()
		glog.V(1).Infof("session of client %s at %s: %v", n.id, n.address, err)
		n.stream.abort()
	}
}

// opened lets pushes through, and catches up with what came while the session was opening.
func (n *session) opened() {
	n.mu.Lock()
	n.opening = false
	refused := n.blacklisted && !n.rekeyed
	first := n.first
	n.first = nil
	n.mu.Unlock()
	if refused {
		n.server.pushes.Go(n.blacklist)
	}
	if len(first) == 0 {
		n.finishFetch(false)
	} else {
		n.server.pushes.Go(func() {
			n.recordAttempts(first)
			n.finishFetch(false)
		})
	}
	n.server.broadcasts.offer(n)
}

// replace ends all pushes to the session because its client has a newer one.
func (n *session) replace() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.replaced = !n.silent
	n.silent = true
}

// silence ends all pushes to the session; records are still read and acknowledged.
func (n *session) silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = true
}
