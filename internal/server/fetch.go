package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// fetchPhase is where a session stands on the way from a mark to its messages. At most one fetch of a session is under way,
// and the next one starts after the attempts of the last are recorded, so that no message is handed out twice.
type fetchPhase uint8

const (
	fetchIdle   fetchPhase = iota // nothing is known to wait
	fetchQueued                   // waits for a fetcher
	fetchBusy                     // being fetched or delivered
)

// Retries of fetches and attempts while the store is away.
const (
	retryFirst = 200 * time.Millisecond
	retryMost  = 10 * time.Second
)

// mark says that messages may wait for the client. It never blocks.
func (n *session) mark() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.markLocked()
}

func (n *session) markLocked() {
	switch {
	case n.silent || n.blacklisted:
	case n.phase == fetchBusy:
		n.again = true
	case n.phase == fetchIdle:
		n.phase = fetchQueued
		if err := n.server.fetches.DoAsync(n, n.fetched); err != nil {
			n.phase = fetchIdle // overloaded or stopping: the sweep finds what is still due
			n.server.metrics.lostMarks.Inc()
		}
	}
}

// beginFetch turns a queued mark into a question to the store.
func (n *session) beginFetch() (store.DueRequest, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase = fetchBusy
	n.again = false
	if n.silent || n.blacklisted {
		return store.DueRequest{}, false
	}
	request, ok := dueRequest(n.id, &n.tokens)
	n.starved = request.Services != nil
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
func (s *Server) fetch(ctx context.Context, marked []*session) ([]*store.DueMessages, error) {
	requests := make([]store.DueRequest, 0, len(marked))
	asked := make([]bool, len(marked))
	for i, n := range marked {
		request, ok := n.beginFetch()
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
	for i, n := range marked {
		if asked[i] {
			due[i] = found[n.id]
		}
	}
	return due, nil
}

// fetched takes the outcome of a fetch. It runs in a fetcher and must not block it.
func (n *session) fetched(due *store.DueMessages, err error) {
	switch {
	case err != nil:
		n.retryFetch()
	case due == nil || len(due.Messages) == 0:
		n.finishFetch(false)
	default:
		n.server.pushes.Go(func() { n.deliver(due) })
	}
}

// retryFetch leaves the session to a later mark. The sweep does not find what fell due before its window, so a failed
// fetch has to be remembered here.
func (n *session) retryFetch() {
	n.mu.Lock()
	n.phase = fetchIdle
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

// deliver pushes fetched messages and records their attempts, then lets the next fetch start.
func (n *session) deliver(due *store.DueMessages) {
	if slices.ContainsFunc(due.Messages, n.isRekey) {
		n.blacklist() // the hint was lost; the request came by the queue
		return
	}
	n.mu.Lock()
	taken, left := takeTokens(&n.tokens, due.Messages)
	n.starved = n.starved || left
	silent := n.silent
	n.mu.Unlock()
	if silent {
		return
	}
	for rest := taken; len(rest) > 0; {
		count := fitting(rest, n.server.cfg.MaxPushBytes)
		if err := n.push(rest[:count]); err != nil {
			n.stream.abort() // the reader sees it and ends the session
			return
		}
		n.recordAttempts(rest[:count])
		rest = rest[count:]
	}
	n.finishFetch(due.More || left)
}

// isRekey recognises the request that fs-admin stores for a client that it blacklists.
func (n *session) isRekey(m *store.PendingMessage) bool {
	return m.ID == identity.RekeyMessageID(n.id)
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

// fitting is how many of messages go into one record of at most limit bytes: at least one, at most
// maxMessagesPerPush.
func fitting(messages []*store.PendingMessage, limit int) int {
	size := 0
	for i, m := range messages {
		size += len(m.Encoded)
		if i == maxMessagesPerPush || (i > 0 && size > limit) {
			return i
		}
	}
	return len(messages)
}

// recordAttempts writes down that messages were handed out. A crash before it repeats them, which at-least-once allows; a
// store that is away is waited for as long as the session lives.
func (n *session) recordAttempts(messages []*store.PendingMessage) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = retryFirst, retryMost
	_, err := backoff.Retry(n.server.life, func() (struct{}, error) {
		err := n.server.handedOut(n.server.life, messages)
		if n.over() {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retry), backoff.WithMaxElapsedTime(0))
	if err != nil && !errors.Is(err, context.Canceled) {
		n.server.metrics.complain("recording what client %s got: %v", n.id, err)
	}
}

func (n *session) over() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.silent
}

// handedOut records the attempts of messages; a Die request is complete with it, because nobody is left to acknowledge it.
func (s *Server) handedOut(ctx context.Context, messages []*store.PendingMessage) error {
	var attempts, last []store.MessageRef
	for _, m := range messages {
		ref := store.MessageRef{ClientID: m.ClientID, ID: m.ID}
		if isDie(m) {
			last = append(last, ref)
			continue
		}
		attempts = append(attempts, ref)
	}
	if len(last) > 0 {
		if err := s.cfg.Store.CompleteMessages(ctx, last); err != nil {
			return err
		}
	}
	if len(attempts) == 0 {
		return nil
	}
	_, err := s.attempts.Do(ctx, attempts)
	return err
}

func isDie(m *store.PendingMessage) bool {
	return m.Service == systemService && m.Type == "Die"
}

// writeAttempts runs one batch of attempts.
func (s *Server) writeAttempts(ctx context.Context, groups [][]store.MessageRef) ([]struct{}, error) {
	var refs []store.MessageRef
	for _, group := range groups {
		refs = append(refs, group...)
	}
	return make([]struct{}, len(groups)), s.cfg.Store.RecordAttempts(ctx, refs, s.cfg.RedeliveryInterval)
}
