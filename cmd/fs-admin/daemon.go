package main

import (
	"context"
	"errors"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/cmd/internal/tier"
	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/notify"
)

// daemon is everything that runs in the process. Fields stand in the order in which they are made; they end in the
// opposite one.
type daemon struct {
	tier     *tier.Tier
	settings settings
	notifier *notify.Client
	admin    *admin.Server
}

// open makes all parts, so that a wrong setting ends the start before the first call is answered. On an error everything
// that was made is closed again.
func open(ctx context.Context, s settings) (*daemon, error) {
	common, err := tier.Open(ctx, tier.Config{
		Store:               s.store,
		MaxPendingPerClient: s.admin.MaxPendingPerClient,
		Stats: tier.Probe{
			Field: "--stats_address, farspeak.admin.stats_address or stats_config.address", Address: s.admin.StatsAddress,
		},
		Health: tier.Probe{
			Field:   "--health_address, farspeak.admin.health_check_address or health_check_config.listen_address",
			Address: s.admin.HealthAddress,
		},
	})
	if err != nil {
		return nil, err
	}
	d := &daemon{tier: common, settings: s}
	nc := s.notifierConfig()
	nc.Registerer, nc.HandoverKeys = d.tier.Registry, d.tier.Store.HandoverKey
	nc.Failed = func(address string, err error) {
		glog.Warningf("notifications to %s fail from now on: %v", address, err)
	}
	d.notifier = notify.NewClient(nc)
	if err := d.openAdmin(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.tier.Opened()
	return d, nil
}

func (d *daemon) openAdmin(ctx context.Context) error {
	a := d.settings.admin
	listener, err := d.tier.Sockets.Listen(ctx, systemd.Address{
		Name: "admin", Field: "admin_config.listen_address", Network: a.Network, Address: a.Address,
	})
	if err != nil {
		return err
	}
	cfg := d.settings.adminConfig()
	cfg.Store, cfg.Notifier, cfg.Listener, cfg.Registerer = d.tier.Store, d.notifier, listener, d.tier.Registry
	if d.admin, err = admin.New(cfg); err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// run serves until ctx ends or a part fails: the calls end first, then the notifier, then the store, and the probes last.
func (d *daemon) run(ctx context.Context) error {
	err := d.tier.Run(ctx, tier.Work{Serve: d.serve, Ending: "finishing calls"})
	return errors.Join(err, d.close())
}

// serve announces first: connections wait in the listener, which is bound.
func (d *daemon) serve(ctx context.Context) error {
	d.tier.Serving("serving backends on " + d.settings.admin.Address)
	return d.admin.Run(ctx)
}

// close ends what does not end with its context.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tier.CloseTimeout)
	defer cancel()
	if err := d.notifier.Close(ctx); err != nil {
		glog.Warning(err) // hints only: a stop is no failure for want of them
	}
	return d.tier.Close()
}
