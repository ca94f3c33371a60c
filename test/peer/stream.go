package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// streaming is one session of an agent.
type streaming struct {
	agent *Agent
	key   *Key
	*Session

	mu       sync.Mutex
	inFlight [][]*fspb.Message // records 1, 2, … that wait for their acknowledgements; guarded by mu
	acks     uint64            // that came; guarded by mu
	leaving  bool              // after done_sending; guarded by mu
}

// runSession is one session, from dialling to its end. An error means that it did not begin, or broke.
func (a *Agent) runSession(ctx context.Context, target Target) error {
	key, first, messages := a.firstRecord()
	session, answer, err := target.Open(ctx, key, a.cfg.Deflate, first, a.cfg.Labels)
	if err != nil {
		a.requeue(messages)
		return err
	}
	s := &streaming{agent: a, key: key, Session: session}
	a.accepted(key, messages)
	a.began(answer.SequencingNonce)
	stop := context.AfterFunc(ctx, session.Close)
	defer stop()

	over := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { s.sendRecords(over) })
	a.receive(answer.Messages)
	err = s.receiveRecords(answer.SequencingNonce)
	close(over)
	session.Close()
	sending.Wait()
	s.giveBack()
	a.setConnected(false)
	return err
}

// firstRecord makes record 0, which grants all tokens anew.
func (a *Agent) firstRecord() (*Key, *fspb.ContactData, []*fspb.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	messages := a.outbox.take()
	contact := a.contactLocked(messages)
	contact.AllowedMessages = map[string]uint64{systemService: inboxSize}
	for _, service := range a.cfg.Services {
		contact.AllowedMessages[service] = inboxSize
	}
	clear(a.inbox.tokens)
	a.inbox.beacon = false
	return a.key, contact, messages
}

func (a *Agent) began(nonce uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if nonce == 0 {
		a.violatedLocked("the answer to record 0 has no nonce")
	}
	a.nonce = nonce
	a.connected = true
	a.stats.Sessions++
}

func (a *Agent) setConnected(connected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected = connected
}

// sendRecords sends records as there is something to send, until over.
func (s *streaming) sendRecords(over <-chan struct{}) {
	delay := time.NewTimer(s.agent.cfg.BatchDelay)
	defer delay.Stop()
	for {
		for s.sendNext() {
		}
		select {
		case <-over:
			return
		case <-s.agent.wake:
		}
		delay.Reset(s.agent.cfg.BatchDelay)
		select {
		case <-over:
			s.agent.wakeSender() // for the next session
			return
		case <-delay.C:
		}
	}
}

// sendNext sends one record if something is to be sent and the window has room. A write that fails ends the session by
// closing it, which the receiving side notices.
func (s *streaming) sendNext() bool {
	contact := s.admitNext()
	if contact == nil {
		return false
	}
	if err := s.Send(contact, s.agent.cfg.Labels); err != nil {
		s.Close()
		return false
	}
	return true
}

// admitNext takes the next record into the window, or returns nil.
func (s *streaming) admitNext() *fspb.ContactData {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving || len(s.inFlight) >= s.agent.cfg.Window {
		return nil
	}
	contact := s.agent.nextRecord()
	if contact != nil {
		s.inFlight = append(s.inFlight, contact.Messages)
	}
	return contact
}

// nextRecord makes a record of what waits, or nil.
func (a *Agent) nextRecord() *fspb.ContactData {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.outbox.waiting) == 0 && !a.inbox.beacon {
		return nil
	}
	contact := a.contactLocked(a.outbox.take())
	contact.AllowedMessages = a.inbox.tokens
	a.inbox.tokens = make(map[string]uint64)
	a.inbox.beacon = false
	return contact
}

// receiveRecords reads until the session ends. It is nil after an orderly end.
func (s *streaming) receiveRecords(nonce uint64) error {
	for {
		contact, err := s.Receive()
		if err != nil {
			if s.left() || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("session: %w", err)
		}
		if err := s.take(contact, nonce); err != nil {
			return err
		}
		if s.finished() {
			return nil
		}
	}
}

// take handles one record of the server.
func (s *streaming) take(contact *fspb.ContactData, nonce uint64) error {
	a := s.agent
	if contact.DoneSending {
		s.leave(contact)
		return nil
	}
	if len(contact.Messages) > 0 && contact.SequencingNonce != nonce {
		a.violated("a push has nonce %d on a session with nonce %d", contact.SequencingNonce, nonce)
	}
	if contact.AckIndex != 0 {
		if err := s.release(contact.AckIndex); err != nil {
			a.violated("%v", err)
			return err
		}
	}
	a.receive(contact.Messages)
	return nil
}

// release takes an acknowledgement: they come one for each record, in order, from 1 on.
func (s *streaming) release(index uint64) error {
	s.mu.Lock()
	s.acks++
	switch {
	case index != s.acks:
		s.mu.Unlock()
		return fmt.Errorf("acknowledgement %d has the number %d", s.acks, index)
	case len(s.inFlight) == 0:
		s.mu.Unlock()
		return fmt.Errorf("acknowledgement %d is for a record that was not sent", index)
	}
	messages := s.inFlight[0]
	s.inFlight = s.inFlight[1:]
	s.mu.Unlock()
	s.agent.accepted(s.key, messages)
	s.agent.wakeSender()
	return nil
}

// leave takes done_sending: nothing more is sent, and the session ends when all acknowledgements are there.
func (s *streaming) leave(contact *fspb.ContactData) {
	s.mu.Lock()
	again := s.leaving
	s.leaving = true
	s.mu.Unlock()
	a := s.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Farewells++
	if again {
		a.violatedLocked("a second done_sending on one session") // G-59
	}
	if len(contact.Messages) > 0 || contact.AckIndex != 0 {
		a.violatedLocked("done_sending is not alone in its record") // G-59
	}
}

// left says whether the session ends because the server asked for it, or because this agent has a new key.
func (s *streaming) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving && len(s.inFlight) == 0
}

// finished says whether it is time to close: after done_sending when all is acknowledged, and after a rekey when the
// request's own acknowledgement reached the server.
func (s *streaming) finished() bool {
	if s.left() {
		return true
	}
	a := s.agent
	a.mu.Lock()
	rekeyed := a.key != s.key && len(a.inbox.acks) == 0 && len(a.outbox.waiting) == 0
	a.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return rekeyed && len(s.inFlight) == 0
}

// giveBack returns what was not acknowledged to the outbox.
func (s *streaming) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var messages []*fspb.Message
	for _, record := range s.inFlight {
		messages = append(messages, record...)
	}
	s.inFlight = nil
	s.agent.requeue(messages)
}

// pollForever polls one target until ctx ends or a poll fails.
func (a *Agent) pollForever(ctx context.Context, target Target) error {
	var poller *Poller
	for {
		key, contact, messages := a.firstRecord()
		if poller == nil || poller.key != key {
			poller = target.NewPoller(key)
			defer poller.Close()
		}
		reply, err := poller.Poll(ctx, contact, a.cfg.Labels)
		if err != nil {
			a.requeue(messages)
			a.setConnected(false)
			return err
		}
		a.accepted(key, messages)
		a.began(reply.SequencingNonce)
		a.receive(reply.Messages)
		if !pause(ctx, a.cfg.PollInterval) {
			return nil
		}
	}
}
