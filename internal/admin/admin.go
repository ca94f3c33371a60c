// Package admin is the logic of fs-admin: the gRPC service fleetspeak.server.Admin that backends use, and Farspeak's own
// farspeak.control.Control for operators.
//
//	listener ─ gRPC ─ admission ─ guard ─ service ─┬─ insert batcher ─ store ─ notification
//	                 (token, load) (panic, code,   └─ reads, in pages ─ store
//	                                metrics, audit)
//
// # Invariants
//
//   - OK to InsertMessage means that the message is committed. Its ID makes a repeat harmless, so a caller that got any
//     other answer may try again.
//   - Inserts of many callers share a transaction; what one caller inserts after another of its calls returned is
//     delivered after it.
//   - A notification goes out after the commit and is waited for by nobody.
//   - No RPC can end the process, hold a transaction open while its caller reads, or make more of memory than a stated
//     bound. KeepAlive and health checks are answered at any load, and take no place of other calls.
//   - A caller that does not send its request, or does not read, loses its call after a minute, not others theirs.
//   - Errors of the store become gRPC codes in status.go only, and payloads are never logged.
//
// # Who owns what
//
// Server.Run starts the gRPC server and the prober of the store, and returns after both and after the batchers, which it
// flushes, ended. The store and the notifier belong to the caller and outlive Run.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// Defaults of Config.
const (
	DefaultMaxMessageBytes = 64 << 20
	DefaultMaxReplyBytes   = 1 << 30
	DefaultMaxBacklog      = 1_000_000
	DefaultDrainTimeout    = 15 * time.Second
	DefaultStallTimeout    = time.Minute
)

// flushTimeout bounds writing out what the batchers took.
const flushTimeout = 15 * time.Second

// Config is what a Server is made of. Store, Notifier and Listener are needed.
type Config struct {
	Store    Store
	Notifier Notifier
	// Listener is the bound gRPC listener, TCP or Unix. The Server closes it.
	Listener net.Listener
	// TLS is nil for plaintext, which the original's callers speak.
	TLS *tls.Config
	// Token is the bearer token that every call but health checks has to carry; empty means none.
	Token string
	// Reflection offers the descriptions of the services to tools.
	Reflection bool

	// MaxMessageBytes bounds a request.
	MaxMessageBytes int
	// MaxReplyBytes bounds a reply. It is larger, because a caller that lists a whole fleet gets one message.
	MaxReplyBytes int
	// MaxBacklog bounds the messages that wait for server-side services.
	MaxBacklog uint64
	// DrainTimeout is how long calls may go on at a stop.
	DrainTimeout time.Duration
	// StallTimeout is how long a caller may keep a call waiting: for its request, and for room to send the next part of a
	// stream. The call ends then.
	StallTimeout time.Duration

	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

func (c *Config) complete() error {
	if c.Store == nil || c.Notifier == nil || c.Listener == nil {
		return errors.New("admin: Store, Notifier and Listener are needed")
	}
	c.MaxMessageBytes = positiveOr(c.MaxMessageBytes, DefaultMaxMessageBytes)
	c.MaxReplyBytes = max(positiveOr(c.MaxReplyBytes, DefaultMaxReplyBytes), c.MaxMessageBytes)
	c.DrainTimeout = positiveOr(c.DrainTimeout, DefaultDrainTimeout)
	c.StallTimeout = positiveOr(c.StallTimeout, DefaultStallTimeout)
	c.MaxBacklog = positiveOr(c.MaxBacklog, DefaultMaxBacklog)
	return nil
}

func positiveOr[T int | uint64 | time.Duration](n, otherwise T) T {
	if n > 0 {
		return n
	}
	return otherwise
}

// Server serves backends. Make it with New, run it once with Run.
type Server struct {
	cfg       Config
	grpc      *grpc.Server
	service   *service
	admission *admission
	guard     *guard
	health    *health.Server
}

// New checks cfg and makes a Server. Nothing is served before Run, which has to be called: it ends what New started.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	metrics := newMetrics(cfg.Registerer)
	cfg.Listener = limited(cfg.Listener, metrics.refusedConnections.Inc)
	service, err := newService(cfg, metrics)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{
		cfg:       cfg,
		service:   service,
		admission: newAdmission(cfg.Token, cfg.StallTimeout, metrics),
		guard:     newGuard(metrics),
		health:    health.NewServer(),
	}
	s.grpc = s.newGRPC()
	return s, nil
}

// Run serves until ctx ends, then drains: health checks fail, calls under way end, or are cut off after the drain timeout,
// and what they inserted is committed. It returns after everything it started has ended. An error means that the listener
// failed.
func (s *Server) Run(ctx context.Context) error {
	probing, stopProbing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopProbing()
	var jobs sync.WaitGroup
	jobs.Go(func() { s.probeForever(probing) })

	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.cfg.Listener) }()
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-served:
		served <- nil
	}
	stopProbing()
	jobs.Wait()
	s.drain()
	<-served
	s.flush()
	if failure != nil {
		return fmt.Errorf("admin: the gRPC listener failed: %w", failure)
	}
	return nil
}

// drain ends the calls: health first, so that balancers look elsewhere, then everything that is under way.
func (s *Server) drain() {
	s.health.Shutdown()
	s.guard.cutEndless()
	cut := make(chan struct{})
	late := time.AfterFunc(s.cfg.DrainTimeout, func() {
		defer close(cut)
		glog.Warningf("calls under way after %v are cut off", s.cfg.DrainTimeout)
		s.grpc.Stop()
	})
	s.grpc.GracefulStop()
	if !late.Stop() {
		<-cut
	}
}

// flush commits what was taken. Nobody inserts any more.
func (s *Server) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := s.service.close(ctx); err != nil {
		glog.Warningf("flushing at the end: %v", err)
	}
}
