package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/service"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// serviceStopTimeout bounds the stop of one service; they are stopped side by side.
	serviceStopTimeout = 4 * time.Second
	// settleTimeout bounds the wait for room to report an outcome while a service is being stopped.
	settleTimeout = time.Second
)

// Installation is one service as configured.
type Installation struct {
	Config    *fspb.ClientServiceConfig
	Signature []byte // of the signed file it came from; empty for a text file
	Origin    string // file name, for the log
}

// ServiceStatus describes an installed service.
type ServiceStatus struct {
	Name          string    `json:"name"`
	Factory       string    `json:"factory"`
	Started       time.Time `json:"started"`
	Restarts      int       `json:"restarts"`
	Queued        int       `json:"queued"`    // messages in its inbox
	Processed     uint64    `json:"processed"` // messages, failed ones included
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
	// LastError is of the last message that failed, of the last failed restart, or of the service's process.
	LastError string `json:"last_error,omitempty"`
	// Process is the one at the other end; zero for kinds that keep none.
	Process service.State `json:"process,omitzero"`
}

// services owns the installed services: it makes them, feeds each from its inbox in a goroutine of its own, and stops them.
// Operations on the set are serialized by changing; mu guards only the map, so that status never waits for a stop.
type services struct {
	factories service.Factories
	router    *router
	host      func(name string) service.Host
	labels    []string // of this client

	changing sync.Mutex // held while a service is made or stopped

	mu      sync.Mutex
	running map[string]*runningService
	closed  bool
}

// runningService is an instance and the goroutine that feeds it.
type runningService struct {
	installation Installation
	svc          service.Service
	box          *inbox
	cancel       context.CancelFunc
	done         chan struct{} // closed when the goroutine has ended
	halting      sync.Once

	mu     sync.Mutex
	status ServiceStatus
}

func newServices(factories service.Factories, r *router, labels []string, host func(string) service.Host) *services {
	return &services{
		factories: factories,
		router:    r,
		host:      host,
		labels:    labels,
		running:   make(map[string]*runningService),
	}
}

// install starts a service, in place of one of the same name if there is one. The new one is made first: if that fails the
// old one stays.
func (s *services) install(ctx context.Context, in Installation) error {
	if err := s.admissible(in.Config); err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	name := in.Config.Name
	spec := service.Spec{Name: name, Config: in.Config.Config, Host: s.host(name)}
	svc, err := s.factories.New(in.Config.Factory, spec)
	if err != nil {
		return err
	}
	if old := s.get(name); old != nil {
		s.halt(ctx, old)
	}
	return s.start(in, svc)
}

// errNotForThisClient says that a service is meant for other clients.
var errNotForThisClient = errors.New("a required label is missing on this client")

// admissible checks name and required labels. Only labels of the service "client" count.
func (s *services) admissible(c *fspb.ClientServiceConfig) error {
	if err := legalServiceName(c.GetName()); err != nil {
		return err
	}
	for _, l := range c.RequiredLabels {
		if l.ServiceName == clientService && !slices.Contains(s.labels, l.Label) {
			return fmt.Errorf("%w: %q", errNotForThisClient, l.Label)
		}
	}
	return nil
}

func legalServiceName(name string) error {
	switch strings.TrimSpace(name) {
	case "":
		return errors.New("the service has no name")
	case systemService, clientService:
		return fmt.Errorf("the service name %q is reserved", name)
	}
	return nil
}

// start begins to feed a service. The caller holds changing, except for the system service.
func (s *services) start(in Installation, svc service.Service) error {
	name := in.Config.Name
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningService{installation: in, svc: svc, cancel: cancel, done: make(chan struct{})}
	r.status = ServiceStatus{Name: name, Factory: in.Config.Factory, Started: time.Now()}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		cancel()
		return errOutboxClosed
	}
	r.box = s.router.attach(name)
	s.running[name] = r
	s.mu.Unlock()
	go func() { // halt waits for it
		defer close(r.done)
		s.feed(ctx, r)
	}()
	return nil
}

// feed brings messages to a service until ctx ends.
func (s *services) feed(ctx context.Context, r *runningService) {
	for {
		d, beacon, err := r.box.take(ctx)
		if err != nil {
			return
		}
		if beacon {
			s.router.returned()
		}
		failure := process(ctx, r.svc, d.message)
		r.note(failure)
		if failure != nil && ctx.Err() != nil {
			s.router.unsettle(d) // broken off; it comes again
			return
		}
		s.settle(ctx, d, failure)
	}
}

// settle reports an outcome. During a stop there is still a moment for it: the work is done.
func (s *services) settle(ctx context.Context, d *delivery, failure error) {
	wait, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(settleTimeout, cancel) })
	defer stop()
	s.router.settle(wait, d, failure)
}

func (r *runningService) note(failure error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Processed++
	if failure != nil && !errors.Is(failure, errNoOutcome) {
		r.status.LastError, r.status.LastErrorTime = validText(failure.Error(), maxErrorText), time.Now()
	}
}

// halt stops an instance; its inbox stays. It returns after serviceStopTimeout even if the service does not. Only the first
// call stops anything; others wait for it.
func (s *services) halt(ctx context.Context, r *runningService) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serviceStopTimeout)
	defer cancel()
	r.halting.Do(func() {
		r.cancel()
		select {
		case <-r.done:
			r.svc.Stop(ctx)
		case <-ctx.Done():
			glog.Errorf("service %s does not let go of its message; it is left behind", r.installation.Config.Name)
		}
	})
}

// restart replaces an instance by a fresh one of the same configuration. Messages that come meanwhile wait. If it cannot be
// made again the service is gone. changed says that the server knows the services differently.
func (s *services) restart(ctx context.Context, name string) (changed bool, err error) {
	if err := legalServiceName(name); err != nil {
		return false, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.get(name)
	if old == nil {
		return false, fmt.Errorf("%w: %q", ErrServiceUnavailable, name)
	}
	s.halt(ctx, old)
	in := old.installation
	changed = len(in.Signature) > 0
	in.Signature = nil
	svc, err := s.factories.New(in.Config.Factory, service.Spec{Name: name, Config: in.Config.Config, Host: s.host(name)})
	if err != nil {
		s.forget(ctx, name)
		return true, fmt.Errorf("service %q did not start again: %w", name, err)
	}
	if err := s.start(in, svc); err != nil {
		return true, err
	}
	fresh := s.get(name)
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	fresh.status.Restarts = old.snapshot().Restarts + 1
	return changed, nil
}

// remove stops a service for good.
func (s *services) remove(ctx context.Context, name string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.get(name)
	if old == nil || name == systemService {
		return fmt.Errorf("%w: %q", ErrServiceUnavailable, name)
	}
	s.halt(ctx, old)
	s.forget(ctx, name)
	return nil
}

func (s *services) forget(ctx context.Context, name string) {
	s.mu.Lock()
	delete(s.running, name)
	s.mu.Unlock()
	s.router.detach(ctx, name)
}

// stop ends all services side by side; none can be installed afterwards.
func (s *services) stop(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() { s.halt(ctx, r) })
	}
	wg.Wait()
}

func (s *services) get(name string) *runningService {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[name]
}

// ids lists the services as the server is told about them.
func (s *services) ids() []*fspb.ClientInfoData_ServiceID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*fspb.ClientInfoData_ServiceID
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		if name != systemService {
			out = append(out, &fspb.ClientInfoData_ServiceID{Name: name, Signature: s.running[name].installation.Signature})
		}
	}
	return out
}

func (s *services) status() []ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ServiceStatus
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		r := s.running[name]
		status := r.snapshot()
		status.Queued = r.box.depth()
		out = append(out, status)
	}
	return out
}

func (r *runningService) snapshot() ServiceStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	status := r.status
	if s, ok := r.svc.(service.Stater); ok {
		status.Process = s.State()
	}
	if p := status.Process; p.LastErrorTime.After(status.LastErrorTime) {
		status.LastError, status.LastErrorTime = validText(p.LastError, maxErrorText), p.LastErrorTime
	}
	return status
}
