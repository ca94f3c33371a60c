package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/farspeak/farspeak/cmd/internal/tier"
	"github.com/farspeak/farspeak/internal/daemon/memory"
	"github.com/farspeak/farspeak/internal/daemon/run"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

const (
	// hintTimeout bounds reading a notification, and answering it.
	hintTimeout = 10 * time.Second
	// hintIdle is how long a sender's connection is kept for the next one.
	hintIdle = 2 * time.Minute
	// maxHintSenders bounds the connections of senders; each daemon of a fleet needs one. Past it they wait in the accept
	// queue, and what they give up sending is found by the sweep.
	maxHintSenders = 128
)

// daemon is everything that runs in the process. Fields stand in the order in which they are made; they end in the
// opposite one.
type daemon struct {
	tier     *tier.Tier
	settings settings
	garbage  *memory.Collector
	services *services.Manager
	hints    net.Listener
	server   *server.Server

	handoverKey []byte // of this process; peers read it in the store
}

// open makes all parts, so that a wrong setting ends the start before the first client is served. On an error everything
// that was made is closed again.
func open(ctx context.Context, s settings) (*daemon, error) {
	common, err := tier.Open(ctx, tier.Config{
		Store:  s.store,
		Stats:  tier.Probe{Field: "stats_config.address", Address: s.server.StatsAddress},
		Health: tier.Probe{Field: "health_check_config.listen_address", Address: s.server.HealthAddress},
	})
	if err != nil {
		return nil, err
	}
	d := &daemon{tier: common, settings: s, garbage: memory.NewCollector(), handoverKey: make([]byte, notify.HandoverKeySize)}
	rand.Read(d.handoverKey) // never fails
	if err := d.openParts(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *daemon) openParts(ctx context.Context) error {
	c := d.settings.server
	clients, err := listen(ctx, d.tier.Sockets, c, d.tier.Registry)
	if err != nil {
		return err
	}
	if d.hints, err = listenForHints(ctx, d.tier.Sockets, c.Notifications); err != nil {
		return errors.Join(err, clients.Close())
	}
	d.tier.Opened()
	if err := d.openServer(clients); err != nil {
		return errors.Join(err, clients.Close())
	}
	d.tier.Health.Add("listener", func(context.Context) error { return d.server.Serving() })
	return nil
}

// openServer makes the services and the server, which know each other: the services tell it of labels and acknowledgements.
func (d *daemon) openServer(clients net.Listener) (err error) {
	id := newServerID()
	sc := d.settings.servicesConfig()
	sc.Store, sc.ServerID, sc.Registerer = d.tier.Store, id, d.tier.Registry
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
	if cfg.TLS, err = tlsConfig(d.settings.server, d.tier.Registry); err != nil {
		return err
	}
	cfg.Store, cfg.Services, cfg.Listener, cfg.Registerer = fileStore{d.tier.Store}, d.services, clients, d.tier.Registry
	cfg.ID, cfg.Version, cfg.Ready, cfg.Worked = id, run.ReadBuild().Version, d.announce, d.garbage.Note
	cfg.Address = notificationAddress(d.settings.server.Notifications, d.hints.Addr())
	cfg.HandoverKey = d.handoverKey
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
	err := d.tier.Run(ctx, tier.Work{
		Serve:  d.server.Run,
		Jobs:   []tier.Job{{Name: "backlog", Run: d.services.Run}, {Name: "notifications", Run: d.takeHints}},
		Ending: "draining",
	})
	return errors.Join(err, d.close())
}

func (d *daemon) announce() {
	d.tier.Serving(fmt.Sprintf("serving clients on %s, notifications on %s", d.settings.server.Listener.Address, d.hints.Addr()))
}

// takeHints serves the notification listener.
func (d *daemon) takeHints(ctx context.Context) error {
	n := d.settings.server.Notifier
	handler := notify.NewHandler(d.server, notify.Config{
		Secret: n.Secret.Reveal(), HandoverKey: d.handoverKey, Registerer: d.tier.Registry,
	})
	defer handler.Close()
	web := &http.Server{
		Handler: handler, ReadTimeout: hintTimeout, WriteTimeout: hintTimeout, IdleTimeout: hintIdle, MaxHeaderBytes: 16 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(netutil.LimitListener(d.hints, maxHintSenders)) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tier.CloseTimeout)
	defer cancel()
	err := web.Shutdown(ctx)
	<-served
	return err
}

// close ends what does not end with its context. It may be called with some parts missing.
func (d *daemon) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tier.CloseTimeout)
	defer cancel()
	var err error
	if d.services != nil {
		err = d.services.Close(ctx)
	}
	d.garbage.Close()
	return errors.Join(err, d.tier.Close())
}
