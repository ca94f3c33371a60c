package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/cmd/internal/probes"
	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/run"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/retention"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// closeTimeout bounds each part of the end.
const closeTimeout = 10 * time.Second

// daemon is everything that runs in the process. Fields stand in the order in which they are made; they end in the
// opposite one.
type daemon struct {
	settings settings
	registry *prometheus.Registry
	health   *debug.Health
	probes   *probes.Probes
	store    *sqlbase.Store
	notifier *notify.Client
	admin    *admin.Server
}

// open makes all parts, so that a wrong setting ends the start before the first call is answered. On an error everything
// that was made is closed again.
func open(ctx context.Context, s settings) (*daemon, error) {
	d := &daemon{settings: s, registry: debug.NewRegistry(run.ReadBuild()), health: debug.NewHealth()}
	if err := d.openParts(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *daemon) openParts(ctx context.Context) (err error) {
	sockets := systemd.Inherited()
	a := d.settings.admin
	d.probes, err = probes.Open(ctx, sockets, probes.Config{
		StatsField: "--stats_address, farspeak.admin.stats_address or stats_config.address", StatsAddress: a.StatsAddress,
		HealthField:   "--health_address, farspeak.admin.health_check_address or health_check_config.listen_address",
		HealthAddress: a.HealthAddress, Registry: d.registry, Health: d.health,
	})
	if err != nil {
		return err
	}
	d.store, err = database.OpenChecked(ctx, d.settings.store, database.Options{
		MaxPendingPerClient: a.MaxPendingPerClient, Registerer: d.registry,
	})
	if err != nil {
		return err
	}
	nc := d.settings.notifierConfig()
	nc.Registerer = d.registry
	nc.Failed = func(address string, err error) {
		glog.Warningf("notifications to %s fail from now on: %v", address, err)
	}
	d.notifier = notify.NewClient(nc)
	if err := d.openAdmin(ctx, sockets); err != nil {
		return err
	}
	for _, name := range sockets.CloseUnused() {
		glog.Warningf("systemd passed a socket %q that the configuration has no use for", name)
	}
	d.health.Add("store", d.store.Ping)
	return nil
}

func (d *daemon) openAdmin(ctx context.Context, sockets *systemd.Sockets) error {
	a := d.settings.admin
	listener, err := sockets.Listen(ctx, systemd.Address{
		Name: "admin", Field: "admin_config.listen_address", Network: a.Network, Address: a.Address,
	})
	if err != nil {
		return err
	}
	cfg := d.settings.adminConfig()
	cfg.Store, cfg.Notifier, cfg.Listener, cfg.Registerer = d.store, d.notifier, listener, d.registry
	if d.admin, err = admin.New(cfg); err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// run serves until ctx ends or a part fails: the calls end first, then the notifier, then the store, and the probes last.
func (d *daemon) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	jobsCtx, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJobs()
	var jobs errgroup.Group
	start := func(name string, job func(context.Context) error) {
		jobs.Go(func() error {
			if err := job(jobsCtx); err != nil && jobsCtx.Err() == nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
			return nil
		})
	}
	start("retention", retention.New(retention.Config{
		Store: d.store, Retention: database.Retention(d.settings.store.Retention), Registerer: d.registry,
	}).Run)
	start("watchdog", func(ctx context.Context) error {
		return systemd.Watchdog(ctx, func(context.Context) error { return nil })
	})
	undo := context.AfterFunc(ctx, d.announceStop)
	defer undo()

	d.announceStart()
	err := d.admin.Run(ctx)
	stopJobs()
	_ = jobs.Wait() // failures came as the cause of ctx
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return errors.Join(err, d.close())
}

func (d *daemon) announceStart() {
	d.health.Started()
	glog.Infof("serving backends on %s", d.settings.admin.Address)
	if err := systemd.Ready("serving"); err != nil {
		glog.Warning(err)
	}
}

func (d *daemon) announceStop() {
	d.health.Drain()
	if err := systemd.Stopping("finishing calls"); err != nil {
		glog.Warning(err)
	}
}

// close ends what does not end with its context. It may be called with some parts missing.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	if d.notifier != nil {
		if err := d.notifier.Close(ctx); err != nil {
			glog.Warning(err) // hints only: a stop is no failure for want of them
		}
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.probes != nil {
		errs = append(errs, d.probes.Close())
	}
	return errors.Join(errs...)
}
