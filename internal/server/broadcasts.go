package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// fanOutShare is how many connected clients get a broadcast in one transaction.
	fanOutShare = 500
	// maxKnownRecipients bounds what is remembered of who has a broadcast; the store remembers all.
	maxKnownRecipients = 1 << 20
)

// broadcasts is the versioned set of active broadcasts in memory (G-09), and the way to hand them out.
//
// Each broadcast gets a local number when it is first seen. A session remembers the highest number that it was offered, so
// that a wake-up costs one comparison. Limits are kept by the store, exactly: there is nothing to allocate and nothing
// to leak (G-34, G-60).
type broadcasts struct {
	server  *Server
	changed chan struct{} // has room for one: somebody told of a change
	behind  atomic.Bool   // an offer to a session failed
	assign  *batch.Batcher[assignment, []*store.PendingMessage]

	mu     sync.Mutex
	active map[identity.BroadcastID]*activeBroadcast // guarded by mu
	last   uint64                                    // guarded by mu: number of the newest
}

// activeBroadcast is a broadcast that may still be handed out. All but recipients is static.
type activeBroadcast struct {
	*store.Broadcast
	number  uint64
	payload *anypb.Any

	mu         sync.Mutex
	recipients map[identity.ClientID]struct{} // guarded by mu: clients known to have it
}

// assignment asks for the broadcasts of one client.
type assignment struct {
	client identity.ClientID
	offers []*activeBroadcast
}

func newBroadcasts(s *Server) (*broadcasts, error) {
	b := &broadcasts{
		server: s, changed: make(chan struct{}, 1),
		active: make(map[identity.BroadcastID]*activeBroadcast),
	}
	var err error
	b.assign, err = batch.New(batch.Config[assignment, []*store.PendingMessage]{
		Name: "broadcast_assignments", Run: b.writeAssignments, MaxItems: fanOutShare,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	return b, err
}

func (b *broadcasts) close(ctx context.Context) error { return b.assign.Close(ctx) }

// BroadcastsChanged takes the hint that broadcasts were created or disabled.
func (s *Server) BroadcastsChanged() {
	select {
	case s.broadcasts.changed <- struct{}{}:
	default:
	}
}

// run reads the active broadcasts again when told, and from time to time unasked.
func (b *broadcasts) run(ctx context.Context) {
	timer := time.NewTimer(b.interval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.changed:
		case <-timer.C:
			timer.Reset(b.interval())
		}
		if err := b.refresh(ctx); err != nil && ctx.Err() == nil {
			b.server.metrics.complain("broadcasts: %v", err)
		}
	}
}

// interval is the wire protocol's: one to two times the configured one.
func (b *broadcasts) interval() time.Duration {
	return b.server.cfg.BroadcastInterval/4*5 + jittered(b.server.cfg.BroadcastInterval/4)
}

// refresh reads the active broadcasts and sends new ones to connected clients.
func (b *broadcasts) refresh(ctx context.Context) error {
	listed, err := b.server.cfg.Store.ActiveBroadcasts(ctx)
	if err != nil {
		return err
	}
	for _, fresh := range b.replace(listed) {
		if err := b.fanOut(ctx, fresh); err != nil {
			b.forget(fresh) // it is new again at the next refresh
			return err
		}
	}
	b.catchUp()
	return nil
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

// fanOut hands a broadcast to every connected client that it fits, a share at a time.
func (b *broadcasts) fanOut(ctx context.Context, fresh *activeBroadcast) error {
	share := make(map[identity.ClientID]*session, fanOutShare)
	var err error
	flush := func() bool {
		err = b.handShare(ctx, fresh, share)
		clear(share)
		return err == nil
	}
	b.server.registry.each(func(n *session) bool {
		if n.fits(fresh) {
			share[n.id] = n
		}
		return len(share) < fanOutShare || flush()
	})
	if err == nil && len(share) > 0 {
		flush()
	}
	if errors.Is(err, store.ErrNotFound) {
		b.forget(fresh) // all that its limit allows have it, or it was disabled
		return nil
	}
	return err
}

// handShare assigns a broadcast to some connected clients and pushes it to those that get it.
func (b *broadcasts) handShare(ctx context.Context, fresh *activeBroadcast, share map[identity.ClientID]*session) error {
	instances, err := b.assignTo(ctx, fresh, slices.Collect(maps.Keys(share)))
	for _, instance := range instances {
		n := share[instance.ClientID]
		b.server.pushes.Go(func() { n.pushBroadcasts([]*store.PendingMessage{instance}) })
	}
	return err
}

// assignTo gives a broadcast to those of clients that do not have it, as far as its limit goes.
func (b *broadcasts) assignTo(ctx context.Context, a *activeBroadcast, clients []identity.ClientID) ([]*store.PendingMessage, error) {
	now := timestamppb.Now()
	instances, err := b.server.cfg.Store.AssignBroadcast(ctx, a.ID, clients, func(id identity.ClientID) *fspb.Message {
		return a.instance(id, now)
	}, b.server.cfg.RedeliveryInterval)
	if err == nil {
		a.remember(clients)
	}
	return instances, err
}

// instance is the message that carries a broadcast to one client.
func (a *activeBroadcast) instance(id identity.ClientID, now *timestamppb.Timestamp) *fspb.Message {
	destination := a.Destination
	if destination == "" {
		destination = a.Source
	}
	return &fspb.Message{
		MessageId:    identity.NewMessageID().Bytes(),
		Source:       &fspb.Address{ServiceName: a.Source},
		Destination:  &fspb.Address{ClientId: id.Bytes(), ServiceName: destination},
		MessageType:  a.Type,
		CreationTime: now,
		Data:         a.payload,
	}
}

func (a *activeBroadcast) remember(clients []identity.ClientID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range clients {
		if len(a.recipients) >= maxKnownRecipients {
			return
		}
		a.recipients[id] = struct{}{}
	}
}

func (a *activeBroadcast) knownTo(id identity.ClientID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.recipients[id]
	return known
}

func (a *activeBroadcast) expired() bool {
	return a.Expiration != nil && !a.Expiration.AsTime().After(time.Now())
}

// fitsLabels says whether a client with these labels is meant.
func (a *activeBroadcast) fitsLabels(labels []store.Label) bool {
	for _, required := range a.RequiredLabels {
		if !slices.Contains(labels, required) {
			return false
		}
	}
	return !a.expired()
}

// offers lists what a client may get of the broadcasts numbered after seen, and the highest number there is.
func (b *broadcasts) offers(id identity.ClientID, labels []store.Label, seen uint64) (offers []*activeBroadcast, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == seen {
		return nil, seen
	}
	for _, a := range b.active {
		if a.number > seen && a.fitsLabels(labels) && !a.knownTo(id) {
			offers = append(offers, a)
		}
	}
	return offers, b.last
}

// collect assigns what a polling client may get. A store that fails now costs nothing: the next poll asks again.
func (b *broadcasts) collect(ctx context.Context, client *store.Client) []*store.PendingMessage {
	offers, _ := b.offers(client.ID, client.Labels, 0)
	if len(offers) == 0 {
		return nil
	}
	instances, err := b.assign.Do(ctx, assignment{client: client.ID, offers: offers})
	if err != nil {
		b.server.metrics.complain("broadcasts for client %s: %v", client.ID, err)
	}
	return instances
}

// writeAssignments runs one batch of assignments, a transaction for each broadcast.
func (b *broadcasts) writeAssignments(ctx context.Context, wanted []assignment) ([][]*store.PendingMessage, error) {
	clients := make(map[*activeBroadcast][]identity.ClientID)
	for _, w := range wanted {
		for _, offer := range w.offers {
			clients[offer] = append(clients[offer], w.client)
		}
	}
	got := make(map[identity.ClientID][]*store.PendingMessage)
	for a, ids := range clients {
		instances, err := b.assignTo(ctx, a, ids)
		if errors.Is(err, store.ErrNotFound) {
			b.forget(a)
			continue
		}
		if err != nil {
			// What was assigned before is due again after the redelivery interval; nothing is lost with it.
			return nil, err
		}
		for _, instance := range instances {
			got[instance.ClientID] = append(got[instance.ClientID], instance)
		}
	}
	results := make([][]*store.PendingMessage, len(wanted))
	for i, w := range wanted {
		results[i] = got[w.client]
		delete(got, w.client)
	}
	return results, nil
}

func (b *broadcasts) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.active)
}
