package agent

import (
	"container/list"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// maxSeen bounds the messages that are remembered, at some 200 bytes each. It is far above what can wait in inboxes.
	maxSeen = 4096
	// maxSeenText bounds what is remembered of why one failed.
	maxSeenText = 512
)

// outcome is what became of a message from the server.
type outcome struct {
	state outcomeState
	text  string // of a failure
}

type outcomeState int

const (
	outcomePending outcomeState = iota // in an inbox or being processed
	outcomeDone
	outcomeFailed
)

// seen remembers messages of late, so that one the server repeats is answered again and not executed again (G-38). It is
// not safe for concurrent use.
type seen struct {
	byID  map[identity.MessageID]*list.Element
	order list.List // of *seenMessage, the one of oldest news first
}

type seenMessage struct {
	id identity.MessageID
	outcome
}

func newSeen() *seen { return &seen{byID: make(map[identity.MessageID]*list.Element)} }

// find returns what is known of a message.
func (s *seen) find(id identity.MessageID) (outcome, bool) {
	e, found := s.byID[id]
	if !found {
		return outcome{}, false
	}
	return e.Value.(*seenMessage).outcome, true
}

// set notes news about a message, and forgets the oldest one when there are too many.
func (s *seen) set(id identity.MessageID, o outcome) {
	o.text = validText(o.text, maxSeenText)
	if e, found := s.byID[id]; found {
		e.Value.(*seenMessage).outcome = o
		s.order.MoveToBack(e)
		return
	}
	s.byID[id] = s.order.PushBack(&seenMessage{id: id, outcome: o})
	if s.order.Len() > maxSeen {
		s.remove(s.order.Front())
	}
}

// forget drops a message that was not processed: a repeat of it is to be.
func (s *seen) forget(id identity.MessageID) {
	if e, found := s.byID[id]; found {
		s.remove(e)
	}
}

func (s *seen) remove(e *list.Element) {
	delete(s.byID, e.Value.(*seenMessage).id)
	s.order.Remove(e)
}
