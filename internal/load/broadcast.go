package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// labelOwner is the service that owns the labels which clients claim.
const labelOwner = "client"

// BroadcastConfig is for Broadcast.
type BroadcastConfig struct {
	Config
	// Size of the payload in bytes.
	Size int
	// For is how long to wait until all clients have it.
	For time.Duration
}

// Broadcast sends one message to all connected clients: how long until they have it?
func Broadcast(ctx context.Context, c BroadcastConfig) (*Result, error) {
	return play(ctx, "broadcast", c.Config, func(ctx context.Context, r *run) error {
		s, err := newSubmitter(r, c.Size)
		if err != nil {
			return err
		}
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		var hunt *hunt
		p, err := r.phase(ctx, "broadcast", func(ctx context.Context) (err error) {
			if hunt, err = s.broadcast(ctx, 0, r.Job.Labels); err != nil {
				return err
			}
			return r.untilBroadcast(ctx, 1, c.For)
		})
		if hunt != nil {
			defer hunt.disable(ctx)
		}
		r.broadcastFigures(p)
		return err
	})
}

// hunt is a broadcast of the load tool.
type hunt struct {
	admin serverpb.AdminClient
	id    identity.BroadcastID
}

// broadcast creates one for the clients with some labels.
func (s *submitter) broadcast(ctx context.Context, number int, labels []string) (*hunt, error) {
	h := &hunt{s.admins[0], identity.NewBroadcastID()}
	message := s.message(fleet.Stamp{Kind: fleet.Broadcast, Run: s.run, Sequence: uint64(number), Sent: time.Now().UnixNano()})
	b := &serverpb.Broadcast{
		BroadcastId: h.id.Bytes(), Source: message.Source, Destination: message.Destination, MessageType: message.MessageType, Data: message.Data,
	}
	for _, l := range labels {
		b.RequiredLabels = append(b.RequiredLabels, &fspb.Label{ServiceName: labelOwner, Label: l})
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	if _, err := h.admin.CreateBroadcast(ctx, &serverpb.CreateBroadcastRequest{Broadcast: b, Limit: math.MaxInt64}); err != nil {
		return nil, fmt.Errorf("create broadcast: %w", err)
	}
	return h, nil
}

// disable ends the broadcast, so that it reaches nobody after the run.
func (h *hunt) disable(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), submitTimeout)
	defer cancel()
	// When this fails the broadcast stays, which is a nuisance and no wrong result.
	_, _ = h.admin.DisableBroadcasts(ctx, &serverpb.DisableBroadcastsRequest{BroadcastIds: [][]byte{h.id.Bytes()}})
}

// untilBroadcast waits until all clients have that many broadcasts and acknowledged them.
func (r *run) untilBroadcast(ctx context.Context, count int, limit time.Duration) error {
	want := int64(count) * int64(r.Clients)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNotAll)
	defer cancel()
	return r.crew.until(ctx, func(c fleet.Counts) bool {
		return c[fleet.Broadcasts] >= want && c[fleet.AcksTaken] >= c[fleet.Received]+c[fleet.Broadcasts]
	})
}

var errNotAll = errors.New("not all clients got and acknowledged the broadcast in time")

func (r *run) broadcastFigures(p *Phase) {
	d := r.crew.latencies()[fleet.BroadcastTime]
	missing := int64(r.Clients) - p.counts[fleet.Broadcasts]
	for _, share := range []float64{50, 99, 100} {
		name := fmt.Sprintf("seconds_to_%g_percent", share)
		if reached := float64(d.Count()) >= share/100*float64(r.Clients); reached {
			r.result.add(name, fmt.Sprintf("Until %g %% of all clients have it", share), d.At(share*float64(r.Clients)/float64(d.Count())).Seconds(), "s")
		}
	}
	r.result.add("missing", "Clients without it", float64(missing), "")
	r.result.add("duplicates", "Delivered again", float64(p.counts[fleet.Duplicates]), "")
	r.result.add("seconds_to_acks", "Until all acknowledged it", p.Seconds, "s")
	r.costOf(p, "client", "client", float64(p.counts[fleet.Broadcasts]), "µs", 1e6)
}
