package tier

import (
	"context"
	"errors"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
)

// Probe is where a daemon is asked about itself. An empty address means nowhere.
type Probe struct {
	Field   string // of the configuration, for errors
	Address string // host:port
}

// probes are the health and metrics listeners, which live until everything else of the daemon has ended.
type probes struct {
	stop   context.CancelFunc
	served errgroup.Group
}

// openProbes binds the listeners and serves on them until close.
func (t *Tier) openProbes(ctx context.Context, stats, health Probe) (*probes, error) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &probes{stop: stop}
	serve := func(name string, at Probe, handler func(net.Listener) http.Handler) error {
		if at.Address == "" {
			return nil
		}
		l, err := t.Sockets.Listen(ctx, systemd.Address{Name: name, Field: at.Field, Network: "tcp", Address: at.Address})
		if err != nil {
			return err
		}
		p.served.Go(func() error { return debug.Serve(serving, l, handler(l)) })
		return nil
	}
	err := errors.Join(
		serve("stats", stats, func(l net.Listener) http.Handler { return debug.MetricsHandler(t.Registry, l.Addr()) }),
		serve("health", health, func(net.Listener) http.Handler { return t.Health }),
	)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// close ends the listeners and waits for them.
func (p *probes) close() error {
	p.stop()
	return p.served.Wait()
}
