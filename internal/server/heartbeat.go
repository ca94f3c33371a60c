package server

import (
	"context"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/store"
)

// HeartbeatInterval is how often a server says that it lives. Whoever lists servers counts one as gone after a few.
const HeartbeatInterval = 10 * time.Second

// heartbeatTimeout bounds one heartbeat, so that a stuck store does not hold up the stop.
const heartbeatTimeout = 5 * time.Second

// heartbeat announces this server once.
func (s *Server) heartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	now, err := s.cfg.Store.Heartbeat(ctx, store.ServerInfo{
		ID:       s.cfg.ID,
		Address:  s.cfg.Address,
		Version:  s.cfg.Version,
		Sessions: s.Sessions(),
		Draining: s.Draining(),
		Uptime:   time.Since(s.started),

		HandoverKey: s.cfg.HandoverKey,
	})
	if err != nil {
		return err
	}
	// Due times are the store's own, so skew delays nothing; it does confuse whoever compares logs.
	skew := time.Since(now)
	s.clockSkew.Store(int64(skew))
	s.metrics.clockSkew.Set(skew.Seconds())
	return nil
}

func (s *Server) heartbeatForever(ctx context.Context) {
	for pause(ctx, jittered(HeartbeatInterval)) {
		err := s.guard(func() error {
			if err := s.checkMemory(ctx); err != nil {
				return err
			}
			return s.heartbeat(ctx)
		})
		if err != nil && ctx.Err() == nil {
			s.metrics.complain("heartbeat: %v", err)
		}
	}
}

// leave takes this server off the list.
func (s *Server) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), heartbeatTimeout)
	defer cancel()
	if err := s.cfg.Store.RemoveServer(ctx, s.cfg.ID); err != nil {
		glog.Warningf("this server stays listed until its heartbeat is old: %v", err)
	}
}
