package admin

import (
	"context"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/store"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

// everyServer is an age that no heartbeat reaches.
const everyServer = 100 * 365 * 24 * time.Hour

// control implements farspeak.control.Control, for operators.
type control struct {
	controlpb.UnimplementedControlServer

	store Store
}

// ListServers returns the servers that the store knows, in the order of their IDs, dead ones until they are pruned.
func (c *control) ListServers(ctx context.Context, _ *controlpb.ListServersRequest) (*controlpb.ListServersResponse, error) {
	servers, err := c.store.ListServers(ctx, everyServer)
	if err != nil {
		return nil, err
	}
	answer := &controlpb.ListServersResponse{}
	for _, s := range servers {
		answer.Servers = append(answer.Servers, serverProto(s))
	}
	return answer, nil
}

func serverProto(s store.ServerInfo) *controlpb.Server {
	return &controlpb.Server{
		ServerId:            s.ID,
		NotificationAddress: s.Address,
		Version:             s.Version,
		Sessions:            uint64(max(0, s.Sessions)),
		Draining:            s.Draining,
		LastHeartbeat:       timestamppb.New(s.Heartbeat),
	}
}

// ListClientServices returns what a client reported to run (G-47).
func (c *control) ListClientServices(ctx context.Context, request *controlpb.ListClientServicesRequest) (*controlpb.ListClientServicesResponse, error) {
	id, err := clientID(request.GetClientId())
	if err != nil {
		return nil, err
	}
	services, err := c.store.ListClientServices(ctx, id)
	if err != nil {
		return nil, err
	}
	answer := &controlpb.ListClientServicesResponse{}
	for _, s := range services {
		answer.Services = append(answer.Services, &controlpb.ClientService{Name: s.Name, Signature: s.Signature})
	}
	return answer, nil
}

// BacklogStatus measures what waits for services.
func (c *control) BacklogStatus(ctx context.Context, _ *controlpb.BacklogStatusRequest) (*controlpb.BacklogStatusResponse, error) {
	waiting, err := c.store.BacklogStatus(ctx)
	if err != nil {
		return nil, err
	}
	answer := &controlpb.BacklogStatusResponse{}
	for _, b := range waiting {
		answer.Services = append(answer.Services, &controlpb.ServiceBacklog{
			Service:   b.Service,
			Depth:     uint64(max(0, b.Depth)),
			Bytes:     uint64(max(0, b.Bytes)),
			OldestAge: durationpb.New(b.Oldest),
		})
	}
	return answer, nil
}

func uint32Of(n int) uint32 { return uint32(min(max(0, n), math.MaxUint32)) }
