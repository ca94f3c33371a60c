package sqlbase

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// insertLone looks up a row each in PRIMARY of clients, in by_message and in PRIMARY of message_results. In every state
	// of the database a message that was inserted before is either pending or completed: one transaction takes it from the
	// one table and puts it into the other. The statement sees one such state, that at its beginning; where it saw two, it
	// would have to look for the result last, as it does. A look for the result alone would not do: a message that is just
	// being completed shows none yet, and is not pending any more when the statement gets the lock of its row.
	insertLone = `INSERT INTO client_messages (client_id, seq, message_id, due_us, attempts, kind, service, message_type,
		creation_seconds, creation_nanos, size, header, data)
		SELECT c.client_id, {number}(CASE WHEN {now} > ? THEN {now} ELSE ? END), ?, {now}, 0, ?, ?, ?, ?, ?, ?, ?, ?
		FROM clients AS c {index PRIMARY} WHERE c.client_id = ?
		AND NOT EXISTS (SELECT 1 FROM client_messages AS p {index by_message} WHERE p.message_id = ?)
		AND NOT EXISTS (SELECT 1 FROM message_results AS r {index PRIMARY} WHERE r.message_id = ?) {ignore message_id} {returning seq}`

	// maxLone is the size in bytes up to which a message goes this way: the database makes a copy of the row.
	maxLone = 16 << 10
)

// insertLone stores one message by one statement, which is a transaction of its own, and asks meanwhile where the client
// streams to; afterwards, too, if it streamed nowhere. It is for the message that comes alone: to the database and back once,
// where others go four times. When that does not do, it has done nothing and says so: for messages that are known, clients
// that are not, full queues, requests to rekey.
func (s *Store) insertLone(ctx context.Context, p *pending) (outcome store.InsertOutcome, done bool, err error) {
	if p.kind == kindRekey || p.payload.size > maxLone {
		return outcome, false, nil
	}
	rows := []*pending{p}
	full, err := s.fullQueues(ctx, rows, map[identity.ClientID]target{p.client: {}})
	if err != nil || full[p.client] {
		return outcome, false, err
	}
	least := s.sequence.next()
	look := s.lookUpTarget(ctx, p)
	defer look.wait()
	inserted := false
	err = s.writeAlone(ctx, func(t session) (err error) {
		p.seq, inserted, err = t.number(ctx, t.s.sql(insertLone), p.loneArgs(least)...)
		return err
	})
	if err != nil || !inserted {
		return outcome, false, err
	}
	s.queues.added(rows)
	s.sequence.passed(p.seq)
	// Without an answer the client streams nowhere: that costs a hint, and the next sweep finds the message. The look may have
	// seen the message itself; it then is the newest, and whoever is handed it reads the store.
	to := look.wait()
	outcomes := []store.InsertOutcome{{StreamingTo: to.streamingTo, Handover: p.handover(to)}}
	s.lookAgain(ctx, rows, outcomes)
	return outcomes[0], true, nil
}

// loneArgs are the arguments of insertLone, for a message whose number in the order is least, or the time when that is more.
func (p *pending) loneArgs(least int64) []any {
	seconds, nanos := timeArgs(p.message.GetCreationTime())
	return []any{
		least, least, p.id[:], p.kind, p.message.GetDestination().GetServiceName(), cutName(p.message.GetMessageType()),
		seconds, nanos, p.payload.size, p.payload.header, p.payload.dataArg(),
		p.client[:], p.id[:], p.id[:],
	}
}

// look is a question for a target that is under way.
type look struct {
	ended  chan struct{}
	target target // with nothing in it when there was no answer
	cause  any    // of a panic
}

// lookTimeout bounds the look: the message is committed meanwhile, and its sender should not wait for a connection that hangs.
const lookTimeout = 5 * time.Second

// lookUpTarget asks for the target of a message. The caller waits for the answer.
func (s *Store) lookUpTarget(ctx context.Context, p *pending) *look {
	l := &look{ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	go func() {
		defer close(l.ended)
		defer cancel()
		defer func() { l.cause = recover() }()
		if targets, _, err := s.insertTargets(ctx, []*pending{p}); err == nil {
			l.target = targets[p.client]
		}
	}()
	return l
}

// wait returns the target. A panic on the way to it becomes one of the caller.
func (l *look) wait() target {
	<-l.ended
	if l.cause != nil {
		panic(l.cause)
	}
	return l.target
}
