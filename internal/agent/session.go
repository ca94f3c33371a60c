package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// firstAnswerTimeout bounds an attempt, from the dial to the answer of record 0. Servers give themselves three minutes.
	firstAnswerTimeout = 4 * time.Minute
	// ackTimeout is how long a record may go unacknowledged. The original takes up to five minutes for one, and never
	// acknowledges one that it failed to process: then only the end of the session helps.
	ackTimeout = 5*time.Minute + 30*time.Second
	// recordTimeout bounds a record of the server from its first byte to its last.
	recordTimeout = 5 * time.Minute
	// sessionLifetime is how long a session lasts if the server does not end it before. The original ends it earlier.
	sessionLifetime = 11*time.Minute + 30*time.Second
	// lifetimeSlack is how much longer than agreed the agent waits for our server to end the session.
	lifetimeSlack = time.Minute
	// maxLifetime bounds what a server can agree to.
	maxLifetime = 24 * time.Hour
	// leaveTimeout bounds the orderly end: acknowledgements that are still out.
	leaveTimeout = 30 * time.Second
	// goodbyeTimeout is how long the server may take to end its side once ours is done.
	goodbyeTimeout = 5 * time.Second
)

var (
	errHungUp     = errors.New("the server ended the session while records were under way, or without notice")
	errNoRecord   = errors.New("the server ended the session before it answered")
	errAckTimeout = errors.New("a record was not acknowledged in time")
	errStalled    = errors.New("the server stalled in the middle of a record")
	errTooSlow    = errors.New("the server did not answer in time")
	errExpired    = errors.New("the session did not end in order")
)

// session is one streaming connection, or the attempt at one.
//
// The goroutine of run owns the reading side, a second one the writing side; flights is between them. Every way to the end
// cancels the context, which ends whatever blocks; run returns after both are done.
type session struct {
	link *link
	id   *Identity
	to   *endpoint

	// Static after open.
	cancel  context.CancelCauseFunc
	out     *io.PipeWriter // the request body
	deflate *wire.Deflater // on out; nil without compression
	records *wire.RecordWriter

	// Between both sides.
	flights     *flights
	established chan struct{} // closed when record 0 was answered
	leaveOnce   sync.Once

	// Owned by the reading side; tls is not changed once the session is established.
	paced *pacedReader
	tls   *tls.ConnectionState

	// Owned by the writing side.
	grant grant
}

func (l *link) newSession(p *endpoint) *session {
	return &session{link: l, id: l.state.identity(), to: p, established: make(chan struct{})}
}

// run opens the session and serves it to its end.
func (s *session) run(parent context.Context) ended {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	s.cancel = cancel
	s.flights = newFlights(func() { cancel(errAckTimeout) }, s.link.measure)
	request, err := s.open(ctx)
	if err != nil {
		return ended{err: err}
	}
	stop := context.AfterFunc(ctx, s.endBody)
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() { s.write(ctx) })
	end := s.read(ctx, request)
	cancel(end.err)
	s.endBody()
	writer.Wait()
	size, underWay := s.flights.oldest()
	s.link.noteBroken(end.err, size, underWay)
	s.flights.end(end.suspects())
	end.rekeyed = end.orderly && s.link.state.identity() != s.id
	return end
}

// endBody ends a blocked write, and the transport's wait for more of the body. Calling it again does nothing.
func (s *session) endBody() { _ = s.out.CloseWithError(context.Canceled) }

// open prepares the request; its body is a pipe that the writer fills.
func (s *session) open(ctx context.Context) (*http.Request, error) {
	body, out := io.Pipe()
	s.out = out
	request, err := s.link.request(watchConnection(ctx, s.endBody), s.id, http.MethodPost, "https://"+s.to.address+"/streaming-message", body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	request.Close = true // without it the original's HTTP/1.1 would wait for the end of the body before it answers
	request.Header.Set("Expect", "100-continue")
	request.Header.Set(wire.AgentHeader, s.link.cfg.Version)
	sink := io.Writer(out)
	if s.link.deflates(s.to) {
		wire.EncodingDeflate.SetHeader(request.Header)
		s.deflate = wire.NewDeflater(out)
		sink = s.deflate
	}
	s.records = wire.NewRecordWriter(sink, wire.ToServer())
	return request, nil
}

// read is the reading side: the answer to record 0, then records until the end.
func (s *session) read(ctx context.Context, request *http.Request) ended {
	attempt := time.AfterFunc(firstAnswerTimeout, func() { s.cancel(errTooSlow) })
	defer attempt.Stop()
	response, err := s.link.transports.get(s.id).RoundTrip(request)
	if err != nil {
		return ended{err: explain(ctx, err)}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return ended{err: newStatusError(response)}
	}
	s.link.transports.learn(response.Header)
	s.paced = &pacedReader{from: response.Body, idle: true, late: func() { s.cancel(errStalled) }}
	defer s.paced.rest()
	records := wire.NewRecordReader(s.paced, wire.FromServer(nil))
	if err := s.readFirst(ctx, records); err != nil {
		return ended{err: explain(ctx, err)}
	}
	attempt.Stop()
	if err := checkRevoked(*response.TLS, s.link.state.isRevoked); err != nil { // the list may be younger than the dial
		return ended{err: err}
	}
	s.tls = response.TLS
	return s.readRest(ctx, records, response.Header)
}

// explain prefers the reason for which a contact was cancelled to the error that this made.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// readFirst takes record 0. Only its nonce and its messages count.
func (s *session) readFirst(ctx context.Context, records *wire.RecordReader) error {
	first, err := s.next(records)
	if errors.Is(err, io.EOF) {
		return errNoRecord
	}
	if err != nil {
		return err
	}
	s.link.state.setNonce(first.SequencingNonce)
	return s.link.router.deliver(ctx, s.id.ID, first.Messages)
}

// readRest serves the established session.
func (s *session) readRest(ctx context.Context, records *wire.RecordReader, header http.Header) ended {
	start := time.Now()
	s.flights.establish(wire.HasFeature(header, wire.FeatureOrderedAcks))
	s.link.outbox.opened()
	leave := time.AfterFunc(agreedLifetime(header), s.leave)
	defer leave.Stop()
	s.link.endpoints.prefer(s.to)
	s.link.watchdog.stop()
	s.link.setLive(s, start)
	defer s.link.setLive(nil, start)
	glog.Infof("session with server %s as client %v", s.to.address, s.id.ID)
	close(s.established)

	err := s.readRecords(ctx, records)
	end := ended{established: true, lived: time.Since(start), orderly: s.flights.finished()}
	switch {
	case end.orderly:
	case errors.Is(err, io.EOF):
		end.err = errHungUp
	default:
		end.err = explain(ctx, err)
	}
	glog.Infof("session with server %s ended after %v (in order: %t)", s.to.address, end.lived.Round(time.Second), end.orderly)
	return end
}

func (s *session) readRecords(ctx context.Context, records *wire.RecordReader) error {
	for {
		data, err := s.next(records)
		if err != nil {
			return err
		}
		if err := s.link.router.deliver(ctx, s.id.ID, data.Messages); err != nil {
			return err
		}
		if err := s.flights.acknowledge(data.AckIndex); err != nil {
			return err
		}
		if data.DoneSending {
			s.leave() // any number of times, and beside anything else (G-59)
		}
	}
}

// leave begins the orderly end: no more batches are taken, and the writer closes once all records are acknowledged.
func (s *session) leave() {
	s.leaveOnce.Do(func() {
		s.flights.leave()
		time.AfterFunc(leaveTimeout, func() { s.cancel(errExpired) })
	})
}

func (s *session) next(records *wire.RecordReader) (*fspb.ContactData, error) {
	record, err := records.Next()
	s.paced.rest()
	if err != nil {
		return nil, err
	}
	defer record.Release()
	data := &fspb.ContactData{}
	if err := wire.Unmarshal(record.Bytes(), data, wire.MaxServerElements); err != nil {
		return nil, fmt.Errorf("record of the server: %w", err)
	}
	return data, nil
}

// agreedLifetime is when the agent ends the session if the server has not.
func agreedLifetime(header http.Header) time.Duration {
	agreed := wire.Lifetime(header)
	if agreed == 0 {
		return sessionLifetime
	}
	return min(agreed, maxLifetime) + lifetimeSlack
}

// pacedReader gives a record of the server a deadline from its first byte on. Silence between records has none: the
// connection's keep-alive notices a server that is gone. It belongs to the reading goroutine.
type pacedReader struct {
	from io.Reader
	late func()
	idle bool
	stop func() bool // of the timer that runs while a record is incomplete
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	if p.idle && n > 0 {
		p.idle = false
		p.stop = time.AfterFunc(recordTimeout, p.late).Stop
	}
	return n, err
}

// rest ends a record: the next one may take as long as it likes to begin.
func (p *pacedReader) rest() {
	p.idle = true
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}
