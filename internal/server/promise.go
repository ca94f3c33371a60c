package server

import (
	"time"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/wire"
)

// promise is what the answer of a session says of the server, beyond the protocol.
type promise struct {
	features string        // value of wire.FeaturesHeader
	lifetime time.Duration // of the session; 0: none is promised
}

// featuresOf is what a server tells agents that it does. Behind a front end that ends TLS the tickets are the front end's.
func featuresOf(cfg *Config) string {
	if cfg.TLS == nil || cfg.FullHandshakes || cfg.Certificates.Mode() != clientcert.MTLS {
		return wire.FeatureOrderedAcks
	}
	return wire.Features(wire.FeatureOrderedAcks, wire.FeatureSharedTickets)
}
