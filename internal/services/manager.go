package services

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// systemMaxAttempts ends the retries of messages to "system", some four hours after the first: what they report has been
// reported again by then.
const systemMaxAttempts = 30

// systemParallelism is how many messages to "system" may share a commit.
const systemParallelism = 512

// panicLogInterval spaces log lines about panics in one service.
const panicLogInterval = 10 * time.Second

// Manager brings messages to services. Its methods are safe for concurrent use.
type Manager struct {
	cfg     Config
	units   map[string]*unit
	writes  *writes
	metrics *metrics
	backlog *backlog
}

// New makes the services and starts the batchers. The caller runs Run and, at the end, calls Close.
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, units: make(map[string]*unit)}
	m.metrics = newMetrics(cfg.Registerer, cfg.MetricLabels)
	writes, err := newWrites(&m.cfg)
	if err != nil {
		return nil, err
	}
	m.writes = writes
	if err := m.addUnits(); err != nil {
		return nil, errors.Join(err, m.Close(context.Background()))
	}
	m.backlog = newBacklog(m)
	m.metrics.watch(cfg.Registerer, m.units)
	return m, nil
}

func (c *Config) complete() error {
	switch {
	case c.Store == nil:
		return errors.New("services: a store is needed")
	case c.ServerID == "":
		return errors.New("services: a server ID is needed")
	}
	c.ServiceBudget = positiveOr(c.ServiceBudget, DefaultServiceBudget)
	c.BacklogBudget = max(c.ServiceBudget, positiveOr(c.BacklogBudget, DefaultBacklogBudget))
	c.CircuitOpenFor = positiveOr(c.CircuitOpenFor, DefaultCircuitOpenFor)
	c.RoomWait = positiveOr(c.RoomWait, DefaultRoomWait)
	c.BacklogPoll = positiveOr(c.BacklogPoll, DefaultBacklogPoll)
	c.UnservedAfter = positiveOr(c.UnservedAfter, DefaultUnservedAfter)
	c.BacklogMaxMessages = positiveOr(c.BacklogMaxMessages, DefaultBacklogMaxMessages)
	return nil
}

func positiveOr[T cmp.Ordered](v, otherwise T) T {
	var zero T
	if v > zero {
		return v
	}
	return otherwise
}

func (m *Manager) addUnits() error {
	for _, spec := range m.cfg.Services {
		if m.units[spec.Name] != nil {
			return fmt.Errorf("service %q: given twice", spec.Name)
		}
		u, err := m.newUnit(spec)
		if err != nil {
			return fmt.Errorf("service %q: %w", spec.Name, err)
		}
		m.units[spec.Name] = u
	}
	sys := &system{writes: m.writes, metrics: m.metrics}
	sys.killLine.Interval = killLogInterval
	sys.foreignLine.Interval = foreignLogInterval
	m.units[systemName] = &unit{
		name:        systemName,
		service:     sys,
		reports:     sys,
		slots:       semaphore.NewWeighted(systemParallelism),
		maxAttempts: positiveOr(m.cfg.BacklogMaxAttempts, systemMaxAttempts),
		metrics:     m.metrics,
		panicLine:   rate.Sometimes{Interval: panicLogInterval},
	}
	return nil
}

func (m *Manager) newUnit(spec Spec) (*unit, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	u := &unit{
		name:        spec.Name,
		service:     spec.Service,
		slots:       semaphore.NewWeighted(int64(positiveOr(spec.MaxParallelism, DefaultMaxParallelism))),
		maxAttempts: m.cfg.BacklogMaxAttempts,
		metrics:     m.metrics,
		panicLine:   rate.Sometimes{Interval: panicLogInterval},
	}
	if u.service == nil && spec.Factory == FactoryNOOP {
		u.service, u.inline = noop{}, true
		return u, nil
	}
	u.circuit = newCircuit(spec.Name, m.cfg.CircuitOpenFor)
	u.patience = m.cfg.BacklogBudget
	if u.service != nil {
		return u, nil
	}
	service, err := newRemote(spec.GRPC, m.cfg.PermanentCodes)
	if err != nil {
		return nil, err
	}
	u.service = service
	return u, nil
}

// Run works on the backlog until ctx ends, then lets the Process calls under way end and gives the other claims back.
func (m *Manager) Run(ctx context.Context) error { return m.backlog.run(ctx) }

// Close writes what is queued and closes the services. No Ingest and no Run may be under way. When ctx ends first, what was
// not yet written fails.
func (m *Manager) Close(ctx context.Context) error {
	faults := []error{m.writes.close(ctx)}
	for _, u := range m.units {
		if err := u.service.Close(); err != nil {
			faults = append(faults, fmt.Errorf("service %q: close: %w", u.name, err))
		}
	}
	return errors.Join(faults...)
}
