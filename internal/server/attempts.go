package server

import (
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Retries of what failed for want of the store, or of memory: the first and the longest delay, and after how long without
// a failure the next one counts as the first again.
const (
	retryFirst = 200 * time.Millisecond
	retryMost  = 10 * time.Second
	retryQuiet = 2 * retryMost
)

// attemptTimeout bounds one try to record what was handed out.
const attemptTimeout = 15 * time.Second

// handout names messages that were handed to a client.
type handout struct {
	attempts []store.MessageRef // fall due again unless they are acknowledged
	last     []store.MessageRef // Die requests: complete, because nobody is left to acknowledge them

	later bool // the attempts are in the session's ledger
	lost  bool // the session has broken since: its messages go back
}

func handoutOf(messages []*store.PendingMessage) handout {
	var h handout
	for _, m := range messages {
		ref := store.MessageRef{ClientID: m.ClientID, ID: m.ID}
		if isDie(m) {
			h.last = append(h.last, ref)
		} else {
			h.attempts = append(h.attempts, ref)
		}
	}
	return h
}

func isDie(m *store.PendingMessage) bool { return m.Service == systemService && m.Type == "Die" }

func (h handout) all() []store.MessageRef { return slices.Concat(h.attempts, h.last) }

func (h handout) empty() bool { return len(h.attempts) == 0 && len(h.last) == 0 }

// recordAttempts writes down at once that messages were handed out. A crash before it repeats them, which at-least-once
// allows; a store that is away is waited for as long as the session lives.
func (n *session) recordAttempts(h handout) {
	if h.empty() {
		return
	}
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = retryFirst, retryMost
	for {
		err := n.server.handedOut(h)
		if err == nil {
			return
		}
		n.server.metrics.complain("recording what client %s got: %v", n.id, err)
		if n.ended() || !pause(n.server.life, delay.NextBackOff()) {
			return
		}
	}
}

// handedOut records a handout. It does not end with a drain: what was written to a client is written down, too.
func (s *Server) handedOut(h handout) error {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	if len(h.last) > 0 {
		if err := s.cfg.Store.CompleteMessages(ctx, h.last); err != nil {
			return err
		}
	}
	if len(h.attempts) == 0 {
		return nil
	}
	to := s.attempts
	if h.lost {
		to = s.returns
	}
	_, err := to.Do(ctx, h.attempts)
	return err
}

// undo says that messages of one client which counted as handed out were not. A store that is away lets them come again after
// the redelivery interval.
func (s *Server) undo(messages []*store.PendingMessage) {
	if len(messages) == 0 {
		return
	}
	id := messages[0].ClientID
	err := s.undone.DoAsync(handoutOf(messages).all(), func(_ struct{}, err error) {
		if err != nil {
			s.metrics.complain("noting what client %s did not get: %v", id, err)
		}
		s.Wake([]identity.ClientID{id})
	})
	if err != nil {
		s.metrics.complain("noting what client %s did not get: %v", id, err)
	}
}

// writeUndone runs one batch of what was not handed out.
func (s *Server) writeUndone(ctx context.Context, groups [][]store.MessageRef) ([]struct{}, error) {
	return make([]struct{}, len(groups)), s.cfg.Store.UndoAttempts(ctx, slices.Concat(groups...))
}

// writeAttempts runs one batch of attempts.
func (s *Server) writeAttempts(ctx context.Context, groups [][]store.MessageRef) ([]struct{}, error) {
	return make([]struct{}, len(groups)), s.cfg.Store.RecordAttempts(ctx, slices.Concat(groups...), s.cfg.RedeliveryInterval)
}

// writeReturns runs one batch of what ended sessions give back.
func (s *Server) writeReturns(ctx context.Context, groups [][]store.MessageRef) ([]struct{}, error) {
	return make([]struct{}, len(groups)), s.cfg.Store.ReturnMessages(ctx, slices.Concat(groups...), s.cfg.RedeliveryInterval)
}
