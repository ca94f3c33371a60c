package admin

import (
	"context"
	"time"

	"github.com/golang/glog"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// How the store is watched for the health service.
const (
	probeInterval = 2 * time.Second
	probeTimeout  = 2 * time.Second
)

// healthServices are the names that health checks may ask for; the empty one stands for the whole server.
var healthServices = []string{
	"", serverpb.Admin_ServiceDesc.ServiceName, controlpb.Control_ServiceDesc.ServiceName,
}

// probeForever keeps the health service true to the store, until ctx ends.
func (s *Server) probeForever(ctx context.Context) {
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	answered := true // so that a store which never answered is worth a line
	for {
		err := s.probe(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && !answered:
			glog.Info("the store answers again")
		case err != nil && answered:
			glog.Warningf("the store does not answer: %v", err)
		}
		answered = err == nil
		if answered {
			s.setHealth(healthpb.HealthCheckResponse_SERVING)
		} else {
			s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return s.cfg.Store.Ping(ctx)
}

func (s *Server) setHealth(status healthpb.HealthCheckResponse_ServingStatus) {
	for _, name := range healthServices {
		s.health.SetServingStatus(name, status)
	}
}
