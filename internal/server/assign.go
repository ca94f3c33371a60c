package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Which client gets which broadcast, and the message that carries it.

// maxKnownRecipients bounds what is remembered of who has a broadcast; the store remembers all.
const maxKnownRecipients = 1 << 20

// activeBroadcast is a broadcast that may still be handed out. All but recipients is static.
type activeBroadcast struct {
	*store.Broadcast
	number  uint64
	payload *anypb.Any

	mu         sync.Mutex
	recipients map[identity.ClientID]struct{} // guarded by mu: clients known to have it
}

// weight is what one instance holds while it is written.
func (a *activeBroadcast) weight() int64 { return int64(2*len(a.Data) + messageOverhead) }

func weighOffers(offers []*activeBroadcast) (bytes int64) {
	for _, a := range offers {
		bytes += a.weight()
	}
	return bytes
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

// assignment asks for the broadcasts of one client.
type assignment struct {
	client identity.ClientID
	offers []*activeBroadcast
}

// assigned answers an assignment. With an error, some of the broadcasts were not looked at.
type assigned struct {
	instances []*store.PendingMessage
	err       error
}

// collect assigns what a polling client may get: one broadcast, and more up to room bytes. What has no room, or meets a
// store that fails, is offered to the next poll. held is the memory to give back when they are written.
func (b *broadcasts) collect(ctx context.Context, client *store.Client, room int) (instances []*store.PendingMessage, held int64) {
	offers, _ := b.offers(client.ID, client.Labels, 0)
	for i, a := range offers {
		if room -= len(a.Data); room < 0 && i > 0 {
			offers = offers[:i]
			break
		}
	}
	held = weighOffers(offers)
	if len(offers) == 0 || !b.memory.tryTake(held) {
		return nil, 0
	}
	got, err := b.assign.Do(ctx, assignment{client: client.ID, offers: offers})
	if err = errors.Join(err, got.err); err != nil {
		b.server.metrics.complain("broadcasts for client %s: %v", client.ID, err)
	}
	return got.instances, held
}

// writeAssignments runs one batch of assignments, a transaction for each broadcast. One that fails takes nothing from the
// others.
func (b *broadcasts) writeAssignments(ctx context.Context, wanted []assignment) ([]assigned, error) {
	clients := make(map[*activeBroadcast][]identity.ClientID)
	for _, w := range wanted {
		for _, offer := range w.offers {
			clients[offer] = append(clients[offer], w.client)
		}
	}
	got := make(map[identity.ClientID]assigned)
	for a, ids := range clients {
		instances, err := b.assignTo(ctx, a, ids)
		if errors.Is(err, store.ErrNotFound) {
			b.forget(a)
			continue
		}
		for _, instance := range instances {
			of := got[instance.ClientID]
			of.instances = append(of.instances, instance)
			got[instance.ClientID] = of
		}
		if err != nil {
			for _, id := range ids {
				of := got[id]
				of.err = err
				got[id] = of
			}
		}
	}
	return answers(wanted, got), nil
}

// answers puts results in the order of the questions. What a client gets goes to the first of its questions.
func answers(wanted []assignment, got map[identity.ClientID]assigned) []assigned {
	results := make([]assigned, len(wanted))
	for i, w := range wanted {
		results[i] = got[w.client]
		got[w.client] = assigned{err: results[i].err}
	}
	return results
}
