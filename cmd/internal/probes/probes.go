// Package probes serves the health and metrics listeners of a server daemon, from its start until everything else of it
// has ended.
package probes

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
)

// Config says what is served where. An empty address means nothing.
type Config struct {
	StatsField, StatsAddress   string // configuration field, host:port
	HealthField, HealthAddress string
	Registry                   *prometheus.Registry
	Health                     *debug.Health
}

// Probes are the listeners of one daemon.
type Probes struct {
	stop   context.CancelFunc
	served errgroup.Group
}

// Open binds the listeners and serves on them until Close.
func Open(ctx context.Context, sockets *systemd.Sockets, cfg Config) (*Probes, error) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &Probes{stop: stop}
	err := errors.Join(
		p.serve(ctx, serving, sockets, systemd.Address{Name: "stats", Field: cfg.StatsField, Network: "tcp", Address: cfg.StatsAddress},
			func(l net.Listener) http.Handler { return debug.MetricsHandler(cfg.Registry, l.Addr()) }),
		p.serve(ctx, serving, sockets, systemd.Address{Name: "health", Field: cfg.HealthField, Network: "tcp", Address: cfg.HealthAddress},
			func(net.Listener) http.Handler { return cfg.Health }),
	)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Probes) serve(ctx, serving context.Context, sockets *systemd.Sockets, at systemd.Address, handler func(net.Listener) http.Handler) error {
	if at.Address == "" {
		return nil
	}
	l, err := sockets.Listen(ctx, at)
	if err != nil {
		return err
	}
	p.served.Go(func() error { return debug.Serve(serving, l, handler(l)) })
	return nil
}

// Close ends the listeners and waits for them.
func (p *Probes) Close() error {
	p.stop()
	return p.served.Wait()
}
