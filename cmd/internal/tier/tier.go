// Package tier is what fs-server and fs-admin have in common, whatever each serves: they answer probes from their start to
// their end, stand on a store of the right schema, tell systemd and balancers where in their life they are, prune the
// store, and end in order.
//
//	Open ─ the daemon opens its own parts ─ Opened ─ Run: Serve and jobs ─ the daemon closes its own parts ─ Close
package tier

import (
	"context"
	"errors"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/run"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// CloseTimeout bounds each part of the end: what is flushed by then is flushed.
const CloseTimeout = 10 * time.Second

// Config describes a Tier.
type Config struct {
	Store config.Store
	// MaxPendingPerClient bounds the messages that wait for one client; 0 means no bound.
	MaxPendingPerClient uint64
	Stats, Health       Probe
}

// Tier is the common ground of one daemon. Its fields are there from Open to Close.
type Tier struct {
	Sockets  *systemd.Sockets
	Registry *prometheus.Registry
	Health   *debug.Health
	Store    *sqlbase.Store

	retention config.Retention
	probes    *probes
}

// Open makes all of it. Probes are answered from here on, with "starting" until Run.
func Open(ctx context.Context, cfg Config) (*Tier, error) {
	t := &Tier{
		Sockets:   systemd.Inherited(),
		Registry:  debug.NewRegistry(run.ReadBuild()),
		Health:    debug.NewHealth(),
		retention: cfg.Store.Retention,
	}
	var err error
	if t.probes, err = t.openProbes(ctx, cfg.Stats, cfg.Health); err != nil {
		return nil, err
	}
	t.Store, err = database.OpenChecked(ctx, cfg.Store, database.Options{
		MaxPendingPerClient: cfg.MaxPendingPerClient, Registerer: t.Registry,
	})
	if err != nil {
		return nil, errors.Join(err, t.probes.close())
	}
	t.Health.Add("store", t.Store.Ping)
	return t, nil
}

// Opened says that the daemon has taken all the sockets that it will.
func (t *Tier) Opened() {
	for _, name := range t.Sockets.CloseUnused() {
		glog.Warningf("systemd passed a socket %q that the configuration has no use for", name)
	}
}

// Close closes the store, and the probes last.
func (t *Tier) Close() error {
	return errors.Join(t.Store.Close(), t.probes.close())
}
