package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// How a session begins: the request, the first exchange, and the refusals that both can end in.

// handleStream serves one session: POST /streaming-message.
func (s *Server) handleStream(w http.ResponseWriter, r *http.Request) {
	o := s.metrics.observePoll(pollTypeStreamStart)
	encoding, p, err := s.checkStream(r)
	if err == nil && !s.startWork() {
		err = notReady(http.StatusServiceUnavailable)
	}
	if err != nil {
		s.refuseStream(err, r.RemoteAddr, o, func(refused *refusal) {
			if r.ProtoMajor < 2 {
				w.Header().Set("Connection", "close") // or the library would wait for the end of the body
			}
			refused.answer(w)
		})
		return
	}
	lifetime, promised := s.lifetime(r.Header)
	transport, err := s.openStream(w, r, promise{features: s.features, lifetime: promised})
	if err != nil {
		s.work.Done()
		s.refuseStream(failed("the connection cannot be taken over", err), r.RemoteAddr, o, func(*refusal) {})
		return
	}
	s.metrics.handshake(r.TLS)
	n := s.newSession(transport, encoding, p)
	begin := func() (parked bool) { return n.begin(encoding, p, lifetime, o) }
	if shared, ok := transport.(*http2Stream); ok {
		defer shared.detach()
		n.run(begin)
		return
	}
	s.crew.Start(func() { n.run(begin) }) // net/http's goroutine has a large stack and ends here; Run waits for this one through work
}

// startWork counts a new request, unless the server is past taking any.
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

// begin is a session from its first byte on: the first exchange, then records until it is parked or ends.
func (n *session) begin(encoding wire.Encoding, p peer, lifetime time.Duration, o *pollObservation) (parked bool) {
	s := n.server
	s.expiry.addOpening(n)
	n.source = &pacedReader{stream: n.stream}
	var err error
	if n.records, err = s.openRecords(n.source, encoding, n.memory); err != nil {
		n.refuse(err, o)
		return false
	}
	if err := n.open(n.records, p, o); err != nil {
		n.refuse(err, o)
		return false
	}
	n.live = true
	s.expiry.live(n, lifetime)
	if s.Draining() { // it opened while the others were told
		s.pushes.start(n, n.leave)
	}
	n.opened()
	return n.proceed()
}

// errPeerGone says that the peer left or broke the transport, so that there is nobody to answer.
var errPeerGone = errors.New("the peer is gone")

// refuse ends a session that did not get as far as its answer.
func (n *session) refuse(err error, o *pollObservation) {
	if errors.Is(err, errPeerGone) {
		n.cut()
		return
	}
	n.server.refuseStream(err, n.address, o, n.stream.refuse)
	n.finish()
}

// openRecords makes the record reader of a stream and checks the magic.
func (s *Server) openRecords(source *pacedReader, encoding wire.Encoding, memory wire.Memory) (*wire.RecordReader, error) {
	source.expect(time.Now().Add(firstByteTimeout))
	body, err := wire.NewBody(source, encoding)
	if err != nil {
		return nil, bodyRefusal(err)
	}
	reader := wire.NewRecordReader(pacedBody{body, source}, wire.FromClient(memory))
	if err := reader.ReadMagic(); err != nil {
		_ = reader.Close()
		return nil, readRefusal(err)
	}
	return reader, nil
}

// bodyRefusal tells what was wrong with the first bytes of a compressed body.
func bodyRefusal(err error) error {
	if errors.Is(err, wire.ErrProtocol) {
		return encodingRefusal(err)
	}
	return readRefusal(err)
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
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(http.StatusBadRequest, "truncated", "the stream ended before its first record did")
	}
	return fmt.Errorf("%w: %w", errPeerGone, err)
}

// open is the first exchange: record 0, the contact, its messages, and the answer. On success the client is held in the
// registry.
func (n *session) open(reader *wire.RecordReader, p peer, o *pollObservation) error {
	s := n.server
	raw, err := reader.Next()
	if err != nil {
		return readRefusal(err)
	}
	ctx, cancel := context.WithTimeout(s.life, recordTimeout)
	defer cancel()
	defer raw.Release() // its share of the budget stands for the messages, too
	o.read(len(raw.Bytes()))
	rec, err := s.decodeContact(raw.Bytes(), n.memory)
	if err != nil {
		return err
	}
	defer rec.charge.release()
	s.registry.hold(n)
	opened := false
	defer func() {
		if !opened { // or panicked
			s.registry.remove(n)
			n.letGo()
		}
	}()
	if err := n.admit(ctx, p, rec); err != nil {
		return err
	}
	raw.Release()
	rec.charge.release()
	if err := n.join(ctx, o); err != nil {
		return fmt.Errorf("%w: %w", errPeerGone, err)
	}
	opened = true
	return nil
}

// admit records the contact and takes the messages of record 0.
func (n *session) admit(ctx context.Context, p peer, rec record) error {
	s := n.server
	if s.Draining() {
		return notReady(http.StatusServiceUnavailable)
	}
	c, err := s.recordContact(ctx, p, rec, s.cfg.Address)
	if err != nil {
		return err
	}
	n.admitted(c, rec)
	if err := s.ingest(ctx, n.sender(), rec); err != nil {
		return failed("the messages cannot be processed", err)
	}
	return nil
}

// admitted notes what the contact told. A hint that the client is blacklisted may have come first.
func (n *session) admitted(c contact, rec record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nonce, n.labels, n.fresh = c.nonce, c.client.Labels, c.first
	n.contact = c.client.LastContact.UnixMicro()
	n.blacklisted = n.blacklisted || c.client.Blacklisted
	n.tokens.Start(rec.data.AllowedMessages)
}

// join makes the session current and answers record 0. It is in the registry before its queue is read, so that whatever
// arrives in between marks it.
func (n *session) join(ctx context.Context, o *pollObservation) error {
	if replaced := n.server.registry.add(n); replaced != nil {
		replaced.replace()
		n.server.metrics.replaced.Inc()
	}
	for _, old := range n.server.registry.crowd(n.id) {
		old.crowdOut()
	}
	return n.answer(ctx, o)
}

func (n *session) sender() sender {
	n.mu.Lock()
	defer n.mu.Unlock()
	return sender{id: n.id, labels: n.labels, blacklisted: n.blacklisted}
}
