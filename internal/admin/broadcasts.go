package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/golang/glog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// liveServer is the age of a heartbeat up to which a server counts as living: several times the interval of heartbeats.
	liveServer = time.Minute
	// listServersTimeout bounds finding out whom to notify; the change itself is committed by then.
	listServersTimeout = 2 * time.Second
)

// CreateBroadcast stores a broadcast, and tells every server. One with a group_name takes the place of active ones of the
// same group, source, destination and set of labels (G-34).
func (s *service) CreateBroadcast(ctx context.Context, request *serverpb.CreateBroadcastRequest) (*fspb.EmptyMessage, error) {
	b, err := broadcast(request)
	if err != nil {
		return nil, err
	}
	if err := s.store.CreateBroadcast(ctx, b); err != nil {
		return nil, err
	}
	s.notifyBroadcasts(ctx)
	return &fspb.EmptyMessage{}, nil
}

// broadcast checks a request and converts it (G-01). A missing ID is drawn and put into the request, for the audit.
func broadcast(request *serverpb.CreateBroadcastRequest) (*store.Broadcast, error) {
	pb := request.GetBroadcast()
	if pb == nil {
		return nil, invalid("broadcast must be set")
	}
	if len(pb.BroadcastId) == 0 {
		pb.BroadcastId = identity.NewBroadcastID().Bytes()
	}
	id, err := identity.BroadcastIDFromBytes(pb.BroadcastId)
	switch {
	case err != nil:
		return nil, invalid("%v", err)
	case id.IsNil():
		return nil, invalid("broadcast ID of zeros, by which no request could name the broadcast; leave it out to have one drawn")
	case pb.Source == nil:
		return nil, invalid("broadcast must have Source")
	}
	labels, err := requiredLabels(pb.RequiredLabels)
	if err != nil {
		return nil, err
	}
	if pb.ExpirationTime != nil {
		if _, err := timestamp("expiration_time", pb.ExpirationTime); err != nil {
			return nil, err
		}
	}
	b := &store.Broadcast{
		ID: id, Source: pb.Source.ServiceName, Destination: pb.GetDestination().GetServiceName(), Type: pb.MessageType,
		RequiredLabels: labels, Group: pb.GroupName, Expiration: pb.ExpirationTime, Limit: request.Limit,
	}
	if b.Destination == "" {
		b.Destination = b.Source
	}
	if pb.Data != nil {
		if b.Data, err = marshalData(pb.Data); err != nil {
			return nil, invalid("data: %v", err)
		}
	}
	return b, nil
}

// marshalData never returns nil: an empty payload is not an absent one.
func marshalData(data *anypb.Any) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend([]byte{}, data)
}

func requiredLabels(labels []*fspb.Label) ([]store.Label, error) {
	converted := make([]store.Label, len(labels))
	seen := make(map[store.Label]bool, len(labels))
	for i, l := range labels {
		label := store.Label{Service: l.GetServiceName(), Label: l.GetLabel()}
		if seen[label] {
			return nil, invalid("required_labels has %s:%s twice", label.Service, label.Label)
		}
		seen[label] = true
		converted[i] = label
	}
	return converted, nil
}

// ListActiveBroadcasts returns the broadcasts that may still reach clients, all or those of one source service.
func (s *service) ListActiveBroadcasts(ctx context.Context, request *serverpb.ListActiveBroadcastsRequest) (*serverpb.ListActiveBroadcastsResponse, error) {
	if err := s.enterBulk(ctx); err != nil {
		return nil, err
	}
	active, err := s.store.ActiveBroadcasts(ctx)
	if err != nil {
		return nil, err
	}
	answer := &serverpb.ListActiveBroadcastsResponse{}
	room := room{s.cfg.MaxReplyBytes}
	for _, b := range active {
		if request.GetServiceName() != "" && request.GetServiceName() != b.Source {
			continue
		}
		converted, err := broadcastProto(b)
		if err != nil {
			return nil, err
		}
		if err := room.take(converted); err != nil {
			return nil, err
		}
		answer.Broadcasts = append(answer.Broadcasts, converted)
	}
	return answer, nil
}

func broadcastProto(b *store.Broadcast) (*serverpb.Broadcast, error) {
	converted := &serverpb.Broadcast{
		BroadcastId:    b.ID.Bytes(),
		Source:         &fspb.Address{ServiceName: b.Source},
		Destination:    &fspb.Address{ServiceName: b.Destination},
		MessageType:    b.Type,
		RequiredLabels: labelProtos(b.RequiredLabels),
		ExpirationTime: b.Expiration,
	}
	if b.Data != nil {
		converted.Data = &anypb.Any{}
		if err := proto.Unmarshal(b.Data, converted.Data); err != nil {
			return nil, fmt.Errorf("data of broadcast %v: %w", b.ID, err)
		}
	}
	return converted, nil
}

// DisableBroadcasts ends broadcasts, and tells every server. IDs that are not known are ignored.
func (s *service) DisableBroadcasts(ctx context.Context, request *serverpb.DisableBroadcastsRequest) (*fspb.EmptyMessage, error) {
	ids, err := parseAll(request.GetBroadcastIds(), identity.BroadcastIDFromBytes)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return &fspb.EmptyMessage{}, nil
	}
	if err := s.store.DisableBroadcasts(ctx, ids); err != nil {
		return nil, err
	}
	s.notifyBroadcasts(ctx)
	return &fspb.EmptyMessage{}, nil
}

// notifyBroadcasts tells all living servers that the active broadcasts changed. It is a hint: when the servers cannot be
// found, they see the change at their next look at the broadcasts.
func (s *service) notifyBroadcasts(ctx context.Context) {
	s.notifier.NotifyBroadcasts(s.liveServers(ctx))
}

// liveServers are the notification addresses of all living servers; none when they cannot be found.
func (s *service) liveServers(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listServersTimeout)
	defer cancel()
	servers, err := s.store.ListServers(ctx, liveServer)
	if err != nil {
		glog.Warningf("not every server is told of a change: %v", err)
		return nil
	}
	addresses := make([]string, len(servers))
	for i, server := range servers {
		addresses[i] = server.Address
	}
	return addresses
}
