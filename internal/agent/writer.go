package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// write is the writing side of a session: record 0, then whatever gathers while the record before is under way. An idle
// session has nobody awake here.
func (s *session) write(ctx context.Context) {
	err := s.writeFirst()
	if err == nil {
		select {
		case <-s.established:
			err = s.writeRest(ctx)
		case <-ctx.Done():
		}
	}
	// A closed pipe means that the transport gave up; the reading side hears why.
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		s.cancel(err)
	}
}

// writeFirst sends record 0 at once, with the absolute grant and whatever waits.
func (s *session) writeFirst() error {
	select {
	case <-s.link.router.beacon: // its news are in the grant
	default:
	}
	return s.send(s.link.outbox.open(s.id.ID, s.link.batchLimit()), s.grant.first(s.link.router.inboxes()))
}

func (s *session) writeRest(ctx context.Context) error {
	stopping := s.link.leave
	tokensDue := false
	for ctx.Err() == nil {
		if s.flights.close() {
			return s.hangUp()
		}
		ready := s.link.outbox.ready()
		if s.flights.room() {
			last := s.isLast()
			b := s.link.outbox.take(s.id.ID, s.link.batchLimit())
			if b != nil || tokensDue {
				tokensDue = false
				if err := s.send(b, s.grant.next(s.link.router.inboxes())); err != nil {
					return err
				}
			}
			if last {
				s.leave()
			}
			if b != nil || last {
				continue
			}
		} else {
			ready = nil
		}
		select {
		case <-ready:
		case <-s.link.router.beacon:
			tokensDue = true
		case <-s.flights.signal:
		case <-stopping:
			stopping = nil
		case <-ctx.Done():
		}
	}
	return nil
}

// isLast reports whether the next batch is to be the last of this session: the agent has a new identity, or stops. The
// batch carries the acknowledgement of the rekey request (G-53).
func (s *session) isLast() bool {
	return s.link.leaving() || s.link.state.identity() != s.id
}

// send writes one record, with a batch or without.
func (s *session) send(b *batch, tokens map[string]uint64) error {
	c := contact{nonce: s.link.state.nonce(), clock: time.Now(), tokens: tokens, labels: s.link.labels}
	body, err := c.encode(b)
	if err != nil {
		if b != nil {
			b.giveBack()
		}
		return err
	}
	s.flights.launch(b, len(body)) // before the write, which may block: the ack timeout bounds it
	if err := s.records.WriteRecord(body); err != nil {
		return fmt.Errorf("record to the server: %w", err)
	}
	return nil
}

// hangUp ends our side in order and gives the server a moment to end its own.
func (s *session) hangUp() error {
	time.AfterFunc(goodbyeTimeout, func() { s.cancel(errExpired) })
	if s.deflate != nil {
		if err := s.deflate.Close(); err != nil {
			return err
		}
	}
	return s.out.Close()
}

// suspects reports whether the server may have ended a session over what was in the first unacknowledged record.
func (e ended) suspects() bool {
	var status *statusError
	switch {
	case e.orderly || errors.Is(e.err, context.Canceled) || errors.Is(e.err, errNoRoom):
		return false
	case errors.As(e.err, &status):
		return status.content()
	}
	return e.established || errors.Is(e.err, errNoRecord) || errors.Is(e.err, wire.ErrProtocol)
}
