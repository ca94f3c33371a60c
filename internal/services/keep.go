package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Pauses between looks for room in a full backlog.
const (
	minRoomPause = 250 * time.Millisecond
	maxRoomPause = 2 * time.Second
)

// kept is a message of which something has to be stored: retry, dead, or just its success.
type kept struct {
	message  *fspb.Message
	service  string
	unit     *unit  // nil for an unknown service
	retry    bool   // it goes to the backlog
	dead     bool   // it failed for good
	attempts int    // with retry: handed to the service so far
	reason   string // with dead
	stub     bool   // what remains of a message that the store refused
}

func (k kept) id() identity.MessageID {
	id, _ := identity.MessageIDFromBytes(k.message.GetMessageId()) // its length was checked on intake
	return id
}

// keep stores all of them, in as few commits as it can, and returns nil when all are committed. It waits for room in a full
// backlog for a while: the caller does not read on meanwhile, which is how clients feel it.
func (w *writes) keep(ctx context.Context, m *metrics, from sender, items []kept) error {
	giveUp := time.Now().Add(w.roomWait)
	for pause := minRoomPause; ; pause = min(2*pause, maxRoomPause) {
		full, err := w.keepOnce(ctx, m, from, items)
		if err != nil || len(full) == 0 {
			return err
		}
		m.backlogFull.Add(float64(len(full)))
		wait := pause/2 + rand.N(pause/2)
		if time.Now().Add(wait).After(giveUp) {
			return fmt.Errorf("backlog: %w", store.ErrQueueFull)
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("backlog: wait for room: %w", err)
		}
		items = full
	}
}

// keepOnce tries to store all of them and returns those for which the backlog had no room.
func (w *writes) keepOnce(ctx context.Context, m *metrics, from sender, items []kept) (full []kept, err error) {
	answers, err := w.put(ctx, items)
	if err != nil {
		return nil, err
	}
	var stubs []kept
	for i, err := range answers {
		switch k := items[i]; {
		case err == nil:
			m.saved(k, from)
		case errors.Is(err, store.ErrQueueFull):
			full = append(full, k)
		case errors.Is(err, store.ErrInvalid) && (k.retry || k.dead) && !k.stub:
			stubs = append(stubs, stub(k, err))
		default:
			return nil, err
		}
	}
	if len(stubs) == 0 {
		return full, nil
	}
	more, err := w.keepOnce(ctx, m, from, stubs)
	return append(full, more...), err
}

// put queues all of them at once, so that they share commits, and waits for their answers. An error means that ctx ended.
func (w *writes) put(ctx context.Context, items []kept) ([]error, error) {
	answers := make([]error, len(items))
	done := make(chan struct{})
	var open atomic.Int64
	open.Store(int64(len(items)))
	for i, k := range items {
		w.putOne(ctx, k, func(result, err error) {
			if answers[i] = err; err == nil {
				answers[i] = result
			}
			if open.Add(-1) == 0 {
				close(done)
			}
		})
	}
	select {
	case <-done:
		return answers, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the store: %w", ctx.Err())
	}
}

func (w *writes) putOne(ctx context.Context, k kept, answer func(result, err error)) {
	if k.retry {
		k.message.IsBlocklistedSource = false // said anew at every try
		queue(ctx, w.backlog, store.BacklogMessage{ID: k.id(), Service: k.service, Message: k.message, Attempts: k.attempts}, answer)
		return
	}
	queue(ctx, w.results, store.ServiceResult{ID: k.id(), Message: k.message, Service: k.service, Failed: k.dead, Reason: k.reason}, answer)
}

// queue gives an item to a batcher; it waits only when the batcher's queue is full.
func queue[T any](ctx context.Context, b *batch.Batcher[T, error], item T, answer func(result, err error)) {
	err := b.DoAsync(item, answer)
	if errors.Is(err, batch.ErrFull) {
		answer(b.Do(ctx, item))
		return
	}
	if err != nil {
		answer(nil, err)
	}
}

// stub is what remains of a message that the store refuses as it is, such as one that is too large: without it the client
// would send the message, and its neighbours, for ever (G-16).
func stub(k kept, why error) kept {
	return kept{
		message: envelope(k.message, k.service),
		service: k.service,
		unit:    k.unit,
		dead:    true,
		reason:  reason(fmt.Errorf("cannot be stored: %w", why)),
		stub:    true,
	}
}

// envelope is what says which message it was, for the service of that name, and nothing that can be large.
func envelope(m *fspb.Message, service string) *fspb.Message {
	return &fspb.Message{
		MessageId: m.GetMessageId(),
		Source: &fspb.Address{
			ClientId:    m.GetSource().GetClientId(),
			ServiceName: cut(m.GetSource().GetServiceName(), store.MaxName),
		},
		Destination:  &fspb.Address{ServiceName: service},
		MessageType:  cut(m.GetMessageType(), store.MaxName),
		CreationTime: m.GetCreationTime(),
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
