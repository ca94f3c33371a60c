package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/keepalive"
	"github.com/farspeak/farspeak/internal/limit"
	"github.com/farspeak/farspeak/internal/proxyproto"
	"github.com/farspeak/farspeak/internal/server"
)

// descriptorReserve is kept for the store, the services, probes and files when connections are limited by the descriptors
// of the process.
const descriptorReserve = 256

const (
	// halfOpenShare is the part of all connections that may be silent or in a handshake.
	halfOpenShare = 4
	// handshakeQueue and handshakeWait bound the line of TLS handshakes: agents give a handshake ten seconds.
	handshakeQueue = 1 << 14
	handshakeWait  = 8 * time.Second
)

// listen makes the client listener from the socket up: bound or passed by systemd, limited, and with PROXY headers when
// they are configured. TLS comes above it.
func listen(ctx context.Context, sockets *systemd.Sockets, c config.Server, registerer prometheus.Registerer) (net.Listener, error) {
	bound, err := sockets.Listen(ctx, systemd.Address{
		Name: "clients", Field: "https_config.listen_address", Network: "tcp", Address: c.Listener.Address,
	})
	if err != nil {
		return nil, err
	}
	refused := promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "farspeak_connections_refused_total", Help: "Client connections closed before a request, by reason.",
	}, []string{"reason"})
	limited, err := limited(bound, c, func(reason string) { refused.WithLabelValues(reason).Inc() })
	if err != nil {
		return nil, errors.Join(err, bound.Close())
	}
	if !c.Proxy.Enabled {
		return limited, nil
	}
	absent := refused.WithLabelValues("proxy_absent") // counted, and let in
	return proxyproto.NewListener(limited, proxyproto.Config{
		Trusted:       c.Proxy.TrustedSources,
		Required:      c.Proxy.HeaderRequired,
		HeaderTimeout: c.Proxy.HeaderTimeout,
		OnError:       func(reason string) { refused.WithLabelValues("proxy_" + reason).Inc() },
		OnAbsent:      absent.Inc,
	}), nil
}

// limited bounds open and half-open connections.
func limited(bound net.Listener, c config.Server, refused func(reason string)) (net.Listener, error) {
	most := c.MaxSessions
	if most == 0 {
		var err error
		if most, err = limit.MaxConnections(descriptorReserve); err != nil {
			return nil, err
		}
	}
	return limit.NewListener(keepalive.Listener{Listener: bound}, limit.Config{Max: most, MaxHalfOpen: max(1, most/halfOpenShare), OnRefuse: refused})
}

// tlsConfig is nil when the front end speaks plain HTTP to the server. Full handshakes wait in line for their signature,
// so that a storm of clients is a queue and not a collapse.
func tlsConfig(c config.Server, registerer prometheus.Registerer) (*tls.Config, error) {
	if c.Listener.Frontend.Mode.IsCleartext() {
		return nil, nil
	}
	factory := promauto.With(registerer)
	refused := factory.NewCounter(prometheus.CounterOpts{
		Name: "farspeak_handshakes_refused_total", Help: "TLS handshakes refused because too many were under way.",
	})
	line, err := limit.NewHandshakes(limit.HandshakeConfig{
		Concurrent: c.HandshakeConcurrency, Queue: handshakeQueue, Wait: handshakeWait, OnRefuse: refused.Inc,
	})
	if err != nil {
		return nil, err
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "farspeak_handshakes_waiting", Help: "TLS handshakes that wait for their turn.",
	}, func() float64 { return float64(line.Waiting()) })
	certificate, err := line.Certificate(c.Listener.Certificate)
	if err != nil {
		return nil, err
	}
	return server.TLSConfig(certificate), nil
}

// listenForHints binds the notification listener.
func listenForHints(ctx context.Context, sockets *systemd.Sockets, n config.Notifications) (net.Listener, error) {
	address := n.ListenAddress
	if address == "" {
		address = loopback
	}
	return sockets.Listen(ctx, systemd.Address{
		Name: "notifications", Field: "notification_listen_address", Network: "tcp", Address: address,
	})
}
