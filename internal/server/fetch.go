package server

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// fetchPhase is where a session stands on the way from a mark to its messages. At most one fetch of a session is under way,
// and the next one starts when what the last handed out is in the ledger or recorded, so that no message goes out twice.
type fetchPhase uint8

const (
	fetchIdle   fetchPhase = iota // nothing is known to wait
	fetchQueued                   // waits for a fetcher
	fetchBusy                     // being fetched or delivered
)

// fetchTurn is one fetch of a session.
type fetchTurn struct {
	session *session
	turn    uint64
}

// mark says that messages may wait for the client. It never blocks.
func (n *session) mark() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.markLocked()
}

func (n *session) markLocked() {
	switch {
	case !n.takesMessagesLocked():
	case n.phase == fetchBusy:
		n.again = true
	case n.phase == fetchIdle:
		n.turn++
		n.phase = fetchQueued
		if err := n.server.fetches.DoAsync(fetchTurn{n, n.turn}, n.fetched); err != nil {
			n.phase, n.behind = fetchIdle, true // overloaded, or stopping
			n.server.metrics.postponedMarks.Inc()
			n.server.retries.add(n)
		}
	}
}

// beginFetch turns a queued mark into a question to the store. A batch that is split asks again.
func (n *session) beginFetch(turn uint64) (store.DueRequest, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if turn != n.turn {
		return store.DueRequest{}, false
	}
	n.phase = fetchBusy
	n.again = false
	n.ledger.beginFetch()
	if !n.takesMessagesLocked() {
		return store.DueRequest{}, false
	}
	request, ok := dueRequest(n.id, &n.tokens)
	n.asked, n.starved, n.behind = request.Services, false, false
	return request, ok
}

// dueRequest asks for the services of a client that have tokens. A client without any is not asked for.
func dueRequest(id identity.ClientID, tokens *wire.Tokens) (store.DueRequest, bool) {
	services, limited := tokens.Services()
	if !limited {
		return store.DueRequest{ClientID: id, Limit: maxMessagesPerPush}, true
	}
	if services == nil {
		services = []string{}
	}
	return store.DueRequest{ClientID: id, Services: services, Limit: maxMessagesPerPush}, len(services) > 0
}

// fetch reads what is due for many marked sessions at once.
func (s *Server) fetch(ctx context.Context, marked []fetchTurn) ([]*store.DueMessages, error) {
	requests := make([]store.DueRequest, 0, len(marked))
	asked := make([]bool, len(marked))
	for i, m := range marked {
		request, ok := m.session.beginFetch(m.turn)
		if asked[i] = ok; ok {
			requests = append(requests, request)
		}
	}
	due := make([]*store.DueMessages, len(marked))
	if len(requests) == 0 {
		return due, nil
	}
	found, err := s.cfg.Store.DueMessages(ctx, requests)
	if err != nil {
		return nil, err
	}
	for i, m := range marked {
		if asked[i] {
			due[i] = found[m.session.id]
		}
	}
	return due, nil
}

// fetched takes the outcome of a fetch. It runs in a fetcher and must not block it. When there is more than one answer
// holds, some clients of it get nothing but the word that there is more.
func (n *session) fetched(due *store.DueMessages, err error) {
	if err != nil {
		n.retryFetch()
		return
	}
	if due == nil {
		n.finishFetch(false)
		return
	}
	read := len(due.Messages)
	n.mu.Lock()
	due.Messages = n.ledger.endFetch(due.Messages)
	n.mu.Unlock()
	switch {
	case len(due.Messages) > 0:
		n.server.pushes.start(n, func() { n.deliver(due) })
	case read > 0 && due.More:
		n.server.pushes.start(n, n.makeWay)
	default:
		n.finishFetch(due.More)
	}
}

// retryFetch leaves the session to a later mark. The sweep does not find what fell due before its window, so a failed
// fetch has to be remembered here.
func (n *session) retryFetch() {
	n.mu.Lock()
	n.phase, n.behind = fetchIdle, true
	n.mu.Unlock()
	n.server.retries.add(n)
}

// finishFetch ends a fetch; with more, or when marked meanwhile, the next one starts.
func (n *session) finishFetch(more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	again := n.again || more
	n.phase, n.again = fetchIdle, false
	if again {
		n.markLocked()
	}
}

// deliver pushes fetched messages, then lets the next fetch start. What the session does not want any more stays due, for
// the one that follows.
func (n *session) deliver(due *store.DueMessages) {
	if slices.ContainsFunc(due.Messages, n.isRekey) {
		n.blacklist() // the hint was lost; the request came by the queue
		return
	}
	weight := weigh(due.Messages)
	if !n.server.fetchedMemory.tryTake(weight) {
		n.retryFetch()
		return
	}
	unrecorded, left, ok := n.pushDue(due.Messages, weight)
	more := due.More || left
	due.Messages = nil // recording may take long
	n.recordAttempts(unrecorded)
	if ok {
		n.finishFetch(more)
	}
}

// pushDue pushes what the tokens allow of fetched messages, and gives their memory back. It returns what is to be recorded
// before the next fetch; left says that there were not enough tokens, ok that the session goes on.
func (n *session) pushDue(due []*store.PendingMessage, weight int64) (unrecorded handout, left, ok bool) {
	defer n.server.fetchedMemory.give(weight)
	n.mu.Lock()
	taken, left := n.takeLocked(due)
	planned := n.plan(taken)
	n.mu.Unlock()
	out := n.pushAll(taken)
	return n.written(planned, handoutOf(out)), left, len(out) == len(taken)
}

// isRekey recognises the request that fs-admin stores for a client that it blacklists.
func (n *session) isRekey(m *store.PendingMessage) bool {
	return m.ID == identity.RekeyMessageID(n.id)
}

// takeLocked keeps of what is due what the tokens allow; left says that some had to stay.
func (n *session) takeLocked(due []*store.PendingMessage) (taken []*store.PendingMessage, left bool) {
	taken, left = takeTokens(&n.tokens, due)
	n.starved = n.starved || left
	for _, m := range taken {
		n.handed = max(n.handed, m.Seq)
	}
	return taken, left
}

// takeTokens keeps the messages that the tokens allow; left says that some had to stay.
func takeTokens(tokens *wire.Tokens, due []*store.PendingMessage) (taken []*store.PendingMessage, left bool) {
	for _, m := range due {
		if !tokens.TakeFor(m.Service, m.Type) {
			left = true
			continue
		}
		taken = append(taken, m)
	}
	return taken, left
}
