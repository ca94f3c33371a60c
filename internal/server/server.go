// Package server is the logic of fs-server: it terminates the connections of agents, takes their messages for the
// services, and hands them the messages that wait for them.
//
// # What flows through
//
//	listener ─ PROXY header ─ TLS ─ handler ─┬─ poll ───────────────┐
//	                                         ├─ session (reader) ───┼─ contact ─ ingest ─ services
//	                                         └─ files               │
//	notification, sweep, returned tokens ─ mark ─ fetch ─ deliver ──┘
//
// # Invariants
//
//   - A record is acknowledged after all its messages were taken by their services or are durable; in order, one
//     acknowledgement a record. When that fails the session ends without it, and the agent sends the record again.
//   - An idle session costs memory and nothing else. It has no goroutine, no buffer, no timer and no query.
//   - A slow or hostile peer costs its own connection only: writes to a session happen in goroutines of that session, at
//     most one push at a time, under a deadline.
//   - Notifications are hints. The sweep delivers when all of them are lost.
//   - No state here matters: whatever a killed server held is in the store or still with the agent.
//
// # Who owns what
//
// Server.Run starts the loops and the HTTP server and returns after all of them, and after every session, ended. A session
// belongs to the goroutine that reads it while something arrives, and to the poller between; Run counts sessions, not
// goroutines. What pushes to sessions is counted apart. Both are done by a crew of goroutines that are used again.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/crew"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// Defaults of Config.
const (
	DefaultStreamLifetime     = 10 * time.Minute
	DefaultLongStreamLifetime = 4 * time.Hour
	DefaultSweepInterval      = 20 * time.Second
	DefaultRedeliveryInterval = 15 * time.Minute
	DefaultAttemptDelay       = time.Second
	DefaultBroadcastInterval  = time.Minute
	DefaultDrainTimeout       = 20 * time.Second
	DefaultRecordMemory       = 256 << 20
	DefaultPushMemory         = 256 << 20
	DefaultMaxPushBytes       = 4 << 20
)

// Config is what a Server is made of. Store, Services, Listener and Certificates are needed.
type Config struct {
	Store    Store
	Services Ingester

	// Listener is the bound client listener, with PROXY protocol and connection limits applied. The Server closes it.
	Listener net.Listener
	// TLS is nil in the cleartext front-end modes.
	TLS *tls.Config
	// FullHandshakes keeps agents from leaving ML-KEM out of handshakes that resume a session.
	FullHandshakes bool
	// Certificates finds the key of a client in a request.
	Certificates *clientcert.Extractor

	// ID names this process among the servers, and Address is where it takes notifications.
	ID      string
	Address string
	Version string
	// HandoverKey is told to peers with the heartbeats. Who has it can hand messages over to this process at Address. Empty
	// means that nobody can.
	HandoverKey []byte

	// RequiredLabel is the label that a client has to claim; empty means none.
	RequiredLabel string
	// DisableStreaming takes /streaming-message away.
	DisableStreaming bool
	// AuthorizeFiles applies the checks of a contact to /files/.
	AuthorizeFiles bool

	// StreamLifetime is how long a session lives at most; each is shortened at random by up to a fifth, so that a fleet
	// which connected at once does not reconnect at once.
	StreamLifetime time.Duration
	// LongStreamLifetime is the same for agents that let the server decide.
	LongStreamLifetime time.Duration
	// SweepInterval is how long a message waits at most when its notification is lost.
	SweepInterval time.Duration
	// RedeliveryInterval is after what time a message that was not acknowledged is sent again.
	RedeliveryInterval time.Duration
	// AttemptDelay is about how long a message that was handed out may wait for its acknowledgement before the attempt is
	// written to the store. What is acknowledged before costs the store nothing.
	AttemptDelay time.Duration
	// BroadcastInterval is how often the active broadcasts are read when no notification tells of a change.
	BroadcastInterval time.Duration
	// DrainTimeout bounds an orderly stop.
	DrainTimeout time.Duration
	// RecordMemory is the budget in bytes for records that are being read, over all connections.
	RecordMemory int64
	// PushMemory is the budget in bytes for messages that were read from the store and are not written yet, over all
	// sessions: half of it for queued messages, half for broadcasts.
	PushMemory int64
	// MaxPushBytes caps one record to a client; a single larger message goes alone.
	MaxPushBytes int
	// Registrations limits how fast unknown clients may register.
	Registrations RegistrationLimits

	// Ready, when set, is called once, when clients are served from now on.
	Ready func()
	// Worked, when set, is called after each piece of work of a session: it began, took records, or ended. It must be quick.
	Worked func()

	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Server terminates the connections of agents. Make it with New, run it once with Run.
type Server struct {
	cfg      Config
	features string // value of wire.FeaturesHeader
	started  time.Time
	metrics  *metrics
	budget   *wire.Budget
	registry *registry
	expiry   *expiry

	registrations *registrationLimiter
	broadcasts    *broadcasts

	lookups  *batch.Batcher[identity.ClientID, *store.Client]
	contacts *batch.Batcher[contactEvent, store.ContactOutcome]
	fetches  *batch.Batcher[fetchTurn, *store.DueMessages]
	attempts *batch.Batcher[[]store.MessageRef, struct{}]
	returns  *batch.Batcher[[]store.MessageRef, struct{}] // of sessions that ended
	undone   *batch.Batcher[[]store.MessageRef, struct{}] // counted as attempts and not written to any session

	// life ends when sessions are cut off: at the end of a drain.
	life    context.Context
	cut     context.CancelFunc
	retries *retryList
	idle    idlePoller // waits for what idle sessions send

	handouts      *handouts   // what was handed out and is not recorded
	fetchedMemory *pushMemory // for messages that were fetched; broadcasts have their own
	crew          *crew.Crew  // goroutines of sessions, while there is something to do for them
	pushes        pushes      // what of that writes to sessions

	work         sync.WaitGroup // requests and sessions
	admission    sync.RWMutex   // held for reading while one is counted, for writing while draining is set
	draining     atomic.Bool
	sessionOrder atomic.Uint64 // sessions that there were
	clockSkew    atomic.Int64  // how far this machine's clock is ahead of the store's, in nanoseconds
	serving      atomic.Bool   // connections are accepted
}

// New checks cfg and makes a Server. Nothing is served before Run.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Services == nil || cfg.Listener == nil || cfg.Certificates == nil {
		return nil, errors.New("server: Store, Services, Listener and Certificates are needed")
	}
	cfg.applyDefaults()
	cfg.TLS = withTickets(cfg.TLS)
	s := &Server{
		cfg:           cfg,
		features:      featuresOf(&cfg),
		started:       time.Now(),
		metrics:       newMetrics(cfg.Registerer),
		budget:        wire.NewBudget(cfg.RecordMemory),
		registry:      newRegistry(),
		expiry:        newExpiry(),
		retries:       newRetryList(),
		handouts:      newHandouts(),
		registrations: newRegistrationLimiter(cfg.Registrations, ownAddresses(cfg.Certificates)),
		fetchedMemory: newPushMemory(cfg.PushMemory / 2),
		crew:          crew.New(freeMembers),
	}
	s.pushes = pushes{s.crew}
	s.life, s.cut = context.WithCancel(context.Background())
	if err := s.startBatchers(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s.metrics.watch(cfg.Registerer, s)
	return s, nil
}

func (c *Config) applyDefaults() {
	c.StreamLifetime = durationOr(c.StreamLifetime, DefaultStreamLifetime)
	c.LongStreamLifetime = durationOr(c.LongStreamLifetime, DefaultLongStreamLifetime)
	c.SweepInterval = durationOr(c.SweepInterval, DefaultSweepInterval)
	c.RedeliveryInterval = durationOr(c.RedeliveryInterval, DefaultRedeliveryInterval)
	c.AttemptDelay = durationOr(c.AttemptDelay, DefaultAttemptDelay)
	c.BroadcastInterval = durationOr(c.BroadcastInterval, DefaultBroadcastInterval)
	c.DrainTimeout = durationOr(c.DrainTimeout, DefaultDrainTimeout)
	if c.RecordMemory <= 0 {
		c.RecordMemory = DefaultRecordMemory
	}
	if c.PushMemory <= 0 {
		c.PushMemory = DefaultPushMemory
	}
	if c.MaxPushBytes <= 0 {
		c.MaxPushBytes = DefaultMaxPushBytes
	}
	if c.Worked == nil {
		c.Worked = func() {}
	}
}

func durationOr(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// Run serves until ctx ends, then drains: no new connections, sessions told to leave, records in flight finished,
// batches flushed. It returns after everything it started has ended.
func (s *Server) Run(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		s.closeBatchers()
		_ = s.cfg.Listener.Close()
		if ctx.Err() != nil {
			return nil // told to stop before it had begun
		}
		return fmt.Errorf("server: %w", err)
	}
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	var jobs errgroup.Group
	jobs.Go(func() error { s.expireSessions(loops); return nil })
	jobs.Go(func() error { s.sweepForever(loops); return nil })
	jobs.Go(func() error { s.recordForever(loops); return nil })
	jobs.Go(func() error { s.broadcasts.run(loops); return nil })
	jobs.Go(func() error { s.heartbeatForever(loops); return nil })
	jobs.Go(func() error { s.refreshTicketsForever(loops); return nil })

	served := make(chan error, 1)
	web := s.httpServer()
	s.serving.Store(true)
	go func() {
		served <- web.Serve(s.listener())
		s.serving.Store(false)
	}()
	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
	}
	s.drain(web)
	stopLoops()
	_ = jobs.Wait() // the loops report their own trouble
	s.closeBatchers()
	s.leave()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("server: the client listener failed: %w", serveErr)
	}
	return nil
}

// prepare does what has to be done before the first client is served (G-35).
func (s *Server) prepare(ctx context.Context) error {
	if err := s.broadcasts.refresh(ctx); err != nil {
		return fmt.Errorf("first read of the broadcasts: %w", err)
	}
	if err := s.heartbeat(ctx); err != nil {
		return fmt.Errorf("announcing this server: %w", err)
	}
	if s.cfg.TLS == nil {
		return nil
	}
	if err := s.refreshTickets(ctx); err != nil {
		return fmt.Errorf("session ticket keys: %w", err)
	}
	return nil
}

// Serving returns an error unless connections are accepted.
func (s *Server) Serving() error {
	if !s.serving.Load() {
		return errors.New("no connections are accepted")
	}
	return nil
}

// errPanic says that a round of a loop panicked.
var errPanic = errors.New("panic")

// guard runs one round of a loop. A panic fails that round only (G-01).
func (s *Server) guard(round func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.metrics.panics.Inc()
			glog.Errorf("panic in a loop: %v\n%s", cause, debug.Stack())
			err = errPanic
		}
	}()
	return round()
}

// storeTimeout bounds one question of a loop to the store, so that none of them is stuck for good.
const storeTimeout = 30 * time.Second

// storeNow is the time by the store's clock, as the last heartbeat tells.
func (s *Server) storeNow() time.Time { return time.Now().Add(-time.Duration(s.clockSkew.Load())) }

// Draining says whether the server is on its way out and should get no new connections.
func (s *Server) Draining() bool { return s.draining.Load() }

// Sessions is the number of live sessions.
func (s *Server) Sessions() int { return s.registry.len() }
