package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/cmd/internal/probes"
	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/run"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/retention"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// closeTimeout bounds each part of the end: what is flushed by then is flushed.
const closeTimeout = 10 * time.Second

// daemon is everything that runs in the process. Fields stand in the order in which they are made; they end in the
// opposite one.
type daemon struct {
	settings settings
	registry *prometheus.Registry
	health   *debug.Health
	probes   *probes.Probes
	store    *sqlbase.Store
	services *services.Manager
	hints    net.Listener
	server   *server.Server
}

// open makes all parts, so that a wrong setting ends the start before the first client is served. On an error everything
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
	c := d.settings.server
	d.probes, err = probes.Open(ctx, sockets, probes.Config{
		StatsField: "stats_config.address", StatsAddress: c.StatsAddress, Registry: d.registry,
		HealthField: "health_check_config.listen_address", HealthAddress: c.HealthAddress, Health: d.health,
	})
	if err != nil {
		return err
	}
	if d.store, err = database.OpenChecked(ctx, d.settings.store, database.Options{Registerer: d.registry}); err != nil {
		return err
	}
	clients, err := listen(ctx, sockets, c, d.registry)
	if err != nil {
		return err
	}
	if d.hints, err = listenForHints(ctx, sockets, c.Notifications); err != nil {
		return errors.Join(err, clients.Close())
	}
	for _, name := range sockets.CloseUnused() {
		glog.Warningf("systemd passed a socket %q that the configuration has no use for", name)
	}
	if err := d.openServer(clients); err != nil {
		return errors.Join(err, clients.Close())
	}
	d.health.Add("store", d.store.Ping)
	d.health.Add("listener", func(context.Context) error { return d.server.Serving() })
	return nil
}

// openServer makes the services and the server, which know each other: the services tell it of labels and acknowledgements.
func (d *daemon) openServer(clients net.Listener) (err error) {
	id := newServerID()
	sc := d.settings.servicesConfig()
	sc.Store, sc.ServerID, sc.Registerer = d.store, id, d.registry
	sc.Hooks.LabelsChanged = func(client identity.ClientID, labels []store.Label) {
		d.server.LabelsChanged(client, labels) // made below, before anything can call this
	}
	sc.Hooks.Acknowledged = func(messages []store.MessageRef) { d.server.Acknowledged(messages) }
	if d.services, err = services.New(sc); err != nil {
		return err
	}
	cfg := d.settings.serverConfig()
	if cfg.Certificates, err = extractor(d.settings.server.Listener.Frontend); err != nil {
		return err
	}
	if cfg.TLS, err = tlsConfig(d.settings.server, d.registry); err != nil {
		return err
	}
	cfg.Store, cfg.Services, cfg.Listener, cfg.Registerer = fileStore{d.store}, d.services, clients, d.registry
	cfg.ID, cfg.Version, cfg.Ready = id, run.ReadBuild().Version, d.announceStart
	cfg.Address = notificationAddress(d.settings.server.Notifications, d.hints.Addr())
	d.server, err = server.New(cfg)
	return err
}

// fileStore narrows what OpenFile returns to what the server asks for.
type fileStore struct{ *sqlbase.Store }

func (s fileStore) OpenFile(ctx context.Context, service, name string) (server.StoredFile, error) {
	return s.Store.OpenFile(ctx, service, name)
}

// run serves until ctx ends or a part fails, then ends the parts in order: the server drains while services and
// notifications still work, then those, then the store, and the probes last.
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
	start("backlog", d.services.Run)
	start("notifications", d.takeHints)
	start("retention", retention.New(retention.Config{
		Store: d.store, Retention: database.Retention(d.settings.store.Retention), Registerer: d.registry,
	}).Run)
	start("watchdog", func(ctx context.Context) error {
		return systemd.Watchdog(ctx, func(context.Context) error { return nil })
	})
	undo := context.AfterFunc(ctx, d.announceStop)
	defer undo()

	err := d.server.Run(ctx)
	stopJobs()
	_ = jobs.Wait() // failures came as the cause of ctx
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return errors.Join(err, d.close())
}

func (d *daemon) announceStart() {
	d.health.Started()
	glog.Infof("serving clients on %s, notifications on %s", d.settings.server.Listener.Address, d.hints.Addr())
	if err := systemd.Ready("serving"); err != nil {
		glog.Warning(err)
	}
}

func (d *daemon) announceStop() {
	d.health.Drain()
	if err := systemd.Stopping("draining"); err != nil {
		glog.Warning(err)
	}
}

// takeHints serves the notification listener.
func (d *daemon) takeHints(ctx context.Context) error {
	n := d.settings.server.Notifier
	handler := notify.NewHandler(d.server, notify.Config{Secret: n.Secret.Reveal(), Registerer: d.registry})
	defer handler.Close()
	web := &http.Server{Handler: handler, ReadTimeout: closeTimeout, WriteTimeout: closeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	served := make(chan error, 1)
	go func() { served <- web.Serve(d.hints) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err := web.Shutdown(ctx)
	<-served
	return err
}

// close ends what does not end with its context. It may be called with some parts missing.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	if d.services != nil {
		errs = append(errs, d.services.Close(ctx))
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.probes != nil {
		errs = append(errs, d.probes.Close())
	}
	return errors.Join(errs...)
}
