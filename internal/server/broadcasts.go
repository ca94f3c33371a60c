package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// fanOutShare is how many connected clients get a broadcast in one transaction, at most.
	fanOutShare = 500
	// fanOutPart is the part of the memory for broadcasts that one share may take.
	fanOutPart = 4
	// fanOutWait is how long a share waits for memory that slow clients hold.
	fanOutWait = 10 * time.Second
)

// broadcasts is the versioned set of active broadcasts in memory (G-09), and the way to hand them out.
//
// Each broadcast gets a local number when it is first seen. A session remembers the highest number that it was offered, so
// that a wake-up costs one comparison. Limits are kept by the store, exactly: there is nothing to allocate and nothing
// to leak (G-34, G-60).
type broadcasts struct {
	server  *Server
	changed chan struct{} // has room for one: somebody told of a change
	missing chan struct{} // has room for one: behind was set
	behind  atomic.Bool   // an offer to a session failed
	assign  *batch.Batcher[assignment, assigned]
	memory  *pushMemory

	mu     sync.Mutex
	active map[identity.BroadcastID]*activeBroadcast // guarded by mu
	last   uint64                                    // guarded by mu: number of the newest
}

func newBroadcasts(s *Server) (*broadcasts, error) {
	b := &broadcasts{
		server: s, changed: make(chan struct{}, 1), missing: make(chan struct{}, 1),
		memory: newPushMemory(s.cfg.PushMemory / 2),
		active: make(map[identity.BroadcastID]*activeBroadcast),
	}
	var err error
	b.assign, err = batch.New(batch.Config[assignment, assigned]{
		Name: "broadcast_assignments", Run: b.writeAssignments, MaxItems: fanOutShare,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	return b, err
}

func (b *broadcasts) close(ctx context.Context) error { return b.assign.Close(ctx) }

// poke leaves a word in a channel with room for one.
func poke(word chan struct{}) {
	select {
	case word <- struct{}{}:
	default:
	}
}

// BroadcastsChanged takes the hint that broadcasts were created or disabled.
func (s *Server) BroadcastsChanged() { poke(s.broadcasts.changed) }

// run reads the active broadcasts again when told, from time to time unasked, and soon after something failed.
func (b *broadcasts) run(ctx context.Context) {
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = retryFirst, retryMost
	timer := time.NewTimer(b.interval())
	defer timer.Stop()
	for soon := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-b.missing:
			if !soon {
				soon = true
				timer.Reset(delay.NextBackOff())
			}
			continue
		case <-b.changed:
		case <-timer.C:
		}
		if soon = b.refreshFailed(ctx); soon {
			timer.Reset(delay.NextBackOff())
			continue
		}
		delay.Reset()
		timer.Reset(b.interval())
	}
}

func (b *broadcasts) refreshFailed(ctx context.Context) bool {
	err := b.server.guard(func() error { return b.refresh(ctx) })
	if err != nil && ctx.Err() == nil {
		b.server.metrics.complain("broadcasts: %v", err)
	}
	return err != nil
}

// interval is the wire protocol's: one to two times the configured one.
func (b *broadcasts) interval() time.Duration {
	return b.server.cfg.BroadcastInterval + rand.N(b.server.cfg.BroadcastInterval)
}

// refresh reads the active broadcasts and sends new ones to connected clients. One that fails is new again next time, and
// holds up no other.
func (b *broadcasts) refresh(ctx context.Context) error {
	listed, err := b.list(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, fresh := range b.replace(listed) {
		if err := b.fanOut(ctx, fresh); err != nil {
			b.forget(fresh)
			errs = append(errs, fmt.Errorf("sending %s: %w", fresh.ID, err))
		}
	}
	b.catchUp()
	return errors.Join(errs...)
}

func (b *broadcasts) list(ctx context.Context) ([]*store.Broadcast, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return b.server.cfg.Store.ActiveBroadcasts(ctx)
}

// replace makes listed the active set and returns those that were not in it.
func (b *broadcasts) replace(listed []*store.Broadcast) []*activeBroadcast {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := make(map[identity.BroadcastID]*activeBroadcast, len(listed))
	var fresh []*activeBroadcast
	for _, row := range listed {
		known, ok := b.active[row.ID]
		if !ok {
			b.last++
			known = &activeBroadcast{Broadcast: row, number: b.last, recipients: make(map[identity.ClientID]struct{})}
			if row.Data != nil {
				known.payload = &anypb.Any{}
				if err := proto.Unmarshal(row.Data, known.payload); err != nil {
					b.server.metrics.complain("broadcast %s has a damaged payload and is left out: %v", row.ID, err)
					continue
				}
			}
			fresh = append(fresh, known)
		}
		next[row.ID] = known
	}
	b.active = next
	return fresh
}

func (b *broadcasts) forget(gone *activeBroadcast) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active[gone.ID] == gone {
		delete(b.active, gone.ID)
	}
}

// fanOut hands a broadcast to every connected client that it fits, a share at a time. Slow clients do not hold it up for
// long: who is left when there is no memory is offered it later.
func (b *broadcasts) fanOut(ctx context.Context, fresh *activeBroadcast) error {
	room := int(min(fanOutShare, max(1, b.memory.size/fanOutPart/fresh.weight())))
	share := make([]identity.ClientID, 0, room)
	var err error
	b.server.registry.each(func(n *session) bool {
		if n.fits(fresh) {
			share = append(share, n.id)
		}
		if len(share) == room {
			err = b.handShare(ctx, fresh, share)
			share = share[:0]
		}
		return err == nil
	})
	if err == nil && len(share) > 0 {
		err = b.handShare(ctx, fresh, share)
	}
	switch {
	case errors.Is(err, store.ErrNotFound): // all that its limit allows have it, or it was disabled
		b.forget(fresh)
		return nil
	case errors.Is(err, errNoPushMemory):
		b.fallBehind()
		return nil
	}
	return err
}

// handShare assigns a broadcast to some connected clients and pushes it to those that get it.
func (b *broadcasts) handShare(ctx context.Context, fresh *activeBroadcast, share []identity.ClientID) error {
	waiting, cancel := context.WithTimeout(ctx, fanOutWait)
	defer cancel()
	weight := fresh.weight()
	held := weight * int64(len(share))
	if err := b.memory.take(waiting, held); err != nil {
		return err
	}
	defer func() { b.memory.give(held) }() // the part of those who get nothing
	working, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	instances, err := b.assignTo(working, fresh, share)
	for _, instance := range instances {
		held -= weight
		b.push([]*store.PendingMessage{instance}, weight)
	}
	return err
}

func (b *broadcasts) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.active)
}
