package sqlbase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// insertTargets reads ranges of PRIMARY, and for each client with a session the end of a range of PRIMARY of
	// client_messages.
	insertTargets = `SELECT c.client_id, c.streaming_to, c.last_contact_us,
		CASE WHEN c.streaming_to = '' THEN NULL ELSE (SELECT m.seq FROM client_messages AS m {index PRIMARY}
			WHERE m.client_id = c.client_id ORDER BY m.seq DESC LIMIT 1) END, {now}
		FROM clients AS c {index PRIMARY} WHERE c.client_id IN ({list})`

	// insertMessages leaves alone what by_message knows already.
	insertMessages = `INSERT INTO client_messages (client_id, seq, message_id, due_us, attempts, kind, service, message_type,
		creation_seconds, creation_nanos, size, header, data) VALUES {rows} {ignore message_id}`
	insertMessageRow = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	// deleteMessages looks up rows in by_message.
	deleteMessages = `{delete client_messages by_message message_id}`
)

// Kinds of client_messages.
const (
	kindOrdinary = 0
	// kindRekey is a RekeyRequest of the server. A client may acknowledge it under the ID that it has afterwards, and has
	// at most one pending (G-10).
	kindRekey = 1
)

// pending is a message to a client on its way into the table.
type pending struct {
	client  identity.ClientID
	id      identity.MessageID
	seq     int64
	due     int64
	attempt int64
	kind    int
	message *fspb.Message
	payload payload
}

// InsertMessages stores messages to clients, due at once, in the order given. It answers for each: store.ErrUnknownClient,
// store.ErrQueueFull or store.ErrInvalid, or success. A message whose ID is known, pending or completed, is left as it is
// and is a success; so is a RekeyRequest of the server to a client that has one pending, which falls due now instead.
func (s *Store) InsertMessages(ctx context.Context, messages []*fspb.Message) (_ []store.InsertOutcome, err error) {
	defer s.op("InsertMessages", &err)()
	outcomes := make([]store.InsertOutcome, len(messages))
	rows := make([]*pending, len(messages))
	for i, m := range messages {
		rows[i], outcomes[i].Err = newPending(m)
	}
	if len(rows) == 1 && rows[0] != nil {
		outcome, done, err := s.insertLone(ctx, rows[0])
		if done || err != nil {
			return []store.InsertOutcome{outcome}, err
		}
	}
	targets, now, err := s.insertTargets(ctx, rows)
	if err != nil {
		return nil, err
	}
	full, err := s.fullQueues(ctx, rows, targets)
	if err != nil {
		return nil, err
	}
	fresh, refused := sortOut(rows, outcomes, targets, full)
	known, err := s.insertFresh(ctx, fresh, now)
	if err != nil {
		return nil, err
	}
	alsoKnown, err := s.read().known(ctx, sortedMessages(maps.Keys(refused)))
	if err != nil {
		return nil, err
	}
	for _, id := range alsoKnown {
		known[id] = true
	}
	for i, p := range rows {
		switch {
		case outcomes[i].Err != nil:
		case known[p.id]:
			outcomes[i].Duplicate = true
		case refused[p.id]:
			outcomes[i].Err = store.ErrQueueFull
		case !outcomes[i].Duplicate:
			to := targets[p.client]
			outcomes[i].Handover = p.handover(to)
			to.newest = max(to.newest, p.seq)
			targets[p.client] = to
		}
	}
	s.lookAgain(ctx, rows, outcomes)
	return outcomes, nil
}

// lookAgain asks once more where clients stream to that had no session before their messages were inserted: one that began
// meanwhile may have read its queue before them, and would find them by the next sweep only. Without an answer that is what
// happens.
func (s *Store) lookAgain(ctx context.Context, rows []*pending, outcomes []store.InsertOutcome) {
	absent := make([]*pending, 0, len(rows))
	for i, o := range outcomes {
		if o.Err == nil && !o.Duplicate && o.StreamingTo == "" {
			absent = append(absent, rows[i])
		}
	}
	if len(absent) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	targets, _, err := s.insertTargets(ctx, absent)
	if err != nil {
		return
	}
	for i, p := range rows {
		if p != nil && outcomes[i].StreamingTo == "" {
			outcomes[i].StreamingTo = targets[p.client].streamingTo
		}
	}
}

// sortOut says what can be said before anything is stored: fresh are the messages to insert, each ID once, refused those
// that a full queue has no room for, unless they are known.
func sortOut(rows []*pending, outcomes []store.InsertOutcome, targets map[identity.ClientID]target,
	full map[identity.ClientID]bool) (fresh []*pending, refused map[identity.MessageID]bool) {
	refused = make(map[identity.MessageID]bool)
	seen := make(map[identity.MessageID]bool)
	for i, p := range rows {
		if outcomes[i].Err != nil {
			continue
		}
		to, known := targets[p.client]
		outcomes[i].StreamingTo = to.streamingTo
		switch {
		case !known:
			outcomes[i].Err = store.ErrUnknownClient
		case seen[p.id]:
			outcomes[i].Duplicate = true
		case full[p.client]:
			refused[p.id] = true
		default:
			seen[p.id] = true
			fresh = append(fresh, p)
		}
	}
	return fresh, refused
}

// insertFresh numbers and inserts messages, and returns the IDs that were known.
func (s *Store) insertFresh(ctx context.Context, fresh []*pending,
	now int64) (known map[identity.MessageID]bool, err error) {
	if len(fresh) == 0 {
		return make(map[identity.MessageID]bool), nil
	}
	s.sequence.number(fresh, now)
	raced := false // in an earlier run: some are pending, and it pays to ask which
	err = s.write(ctx, func(t session) error {
		var err error
		known, err = t.insertPending(ctx, fresh, now, raced)
		raced = errors.Is(err, errRaced)
		return err
	})
	if err == nil {
		s.queues.added(fresh)
	}
	return known, err
}

// newPending checks a message and encodes it.
func newPending(m *fspb.Message) (*pending, error) {
	client, err := identity.ClientIDFromBytes(m.GetDestination().GetClientId())
	if err != nil || client.IsNil() {
		return nil, fmt.Errorf("%w: destination client ID of %d bytes", store.ErrInvalid, len(m.GetDestination().GetClientId()))
	}
	id, err := identity.MessageIDFromBytes(m.GetMessageId())
	if err != nil || id.IsNil() {
		return nil, fmt.Errorf("%w: message ID of %d bytes", store.ErrInvalid, len(m.GetMessageId()))
	}
	if m.GetResult() != nil {
		return nil, fmt.Errorf("%w: message with a result", store.ErrInvalid)
	}
	if err := checkName("destination service", m.GetDestination().GetServiceName()); err != nil {
		return nil, err
	}
	p, err := encodeMessage(m)
	if err != nil {
		return nil, err
	}
	return &pending{client: client, id: id, kind: kindOf(m), message: m, payload: p}, nil
}

func kindOf(m *fspb.Message) int {
	if isRekeyRequest(m) {
		return kindRekey
	}
	return kindOrdinary
}

func isRekeyRequest(m *fspb.Message) bool {
	return m.GetMessageType() == "RekeyRequest" && m.GetSource().GetServiceName() == "system" &&
		len(m.GetSource().GetClientId()) == 0
}

// target is a known client that a message is for.
type target struct {
	streamingTo string
	contact     int64 // its last
	newest      int64 // number of the newest message that is pending; 0 when there is none, or no session
}

// insertTargets returns the known clients among the destinations, and the store's clock.
func (s *Store) insertTargets(ctx context.Context, rows []*pending) (targets map[identity.ClientID]target,
	now int64, err error) {
	targets = make(map[identity.ClientID]target)
	for _, p := range rows {
		if p != nil {
			targets[p.client] = target{}
		}
	}
	ids := sortedClients(maps.Keys(targets))
	clear(targets)
	for chunk := range slices.Chunk(ids, maxList) {
		err := s.read().query(ctx, s.sql(insertTargets, len(chunk)), clientArgs(chunk), func(r row) error {
			var id identity.ClientID
			var to target
			var newest sql.NullInt64
			err := r.Scan(fixed(id[:]), &to.streamingTo, &to.contact, &newest, &now)
			to.newest = newest.Int64
			targets[id] = to
			return err
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return targets, now, nil
}

// insertPending inserts rows and returns the IDs that were known before. It expects that none of them is pending; when
// some are, it is errRaced, and the next run asks which. What became of completed messages is read after the insert:
// while the insert waits for an acknowledgement of the same message, its result appears.
func (t session) insertPending(ctx context.Context, rows []*pending, now int64,
	ask bool) (map[identity.MessageID]bool, error) {
	duplicates := make(map[identity.MessageID]bool)
	rows, err := t.skipPendingRekeys(ctx, rows, duplicates, now)
	if err == nil && ask {
		rows, err = t.skipPending(ctx, rows, duplicates)
	}
	if err != nil || len(rows) == 0 {
		return duplicates, err
	}
	rows = slices.SortedFunc(slices.Values(rows), func(a, b *pending) int { return compareMessages(a.id, b.id) })
	inserted, err := t.insert(ctx, insertMessages, insertMessageRow, pendingRows(rows))
	if err != nil {
		return nil, err
	}
	if inserted < int64(len(rows)) {
		return nil, errRaced
	}
	return duplicates, t.dropCompleted(ctx, rows, duplicates)
}

func pendingRows(rows []*pending) [][]any {
	args := make([][]any, len(rows))
	for i, p := range rows {
		seconds, nanos := timeArgs(p.message.GetCreationTime())
		args[i] = []any{
			p.client[:], p.seq, p.id[:], p.due, p.attempt, p.kind, p.message.GetDestination().GetServiceName(),
			cutName(p.message.GetMessageType()), seconds, nanos, p.payload.size, p.payload.header, p.payload.dataArg(),
		}
	}
	return args
}

// skipPending leaves out rows that are in the table, and adds them to duplicates.
func (t session) skipPending(ctx context.Context, rows []*pending,
	duplicates map[identity.MessageID]bool) ([]*pending, error) {
	known, err := t.pendingAmong(ctx, pendingMessageIDs(rows))
	if err != nil {
		return nil, err
	}
	for _, id := range known {
		duplicates[id] = true
	}
	return slices.DeleteFunc(slices.Clone(rows), func(p *pending) bool { return duplicates[p.id] }), nil
}

func pendingMessageIDs(rows []*pending) []identity.MessageID {
	ids := make([]identity.MessageID, len(rows))
	for i, p := range rows {
		ids[i] = p.id
	}
	return ids
}

// dropCompleted removes rows again that have a result, and adds them to duplicates.
func (t session) dropCompleted(ctx context.Context, rows []*pending, duplicates map[identity.MessageID]bool) error {
	completed, err := t.completed(ctx, pendingMessageIDs(rows))
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(completed, maxList) {
		if _, err := t.exec(ctx, t.s.sql(deleteMessages, len(chunk)), messageArgs(chunk)...); err != nil {
			return err
		}
		for _, id := range chunk {
			duplicates[id] = true
		}
	}
	return nil
}

// sequence numbers messages in the order of their insertion: the store's clock, made strictly increasing in this process.
type sequence struct {
	mu   sync.Mutex
	last int64
}

// next is the least number that the next message may have.
func (q *sequence) next() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last + 1
}

// passed says that a message may have this number.
func (q *sequence) passed(number int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = max(q.last, number)
}

func (q *sequence) number(rows []*pending, now int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = max(q.last, now-1)
	for _, p := range rows {
		q.last++
		p.seq = q.last
		p.due = now
	}
}
