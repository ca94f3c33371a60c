// Package resume spares both ends of a TLS connection most of the key exchange when the client holds a ticket.
//
// The usual key exchange has two halves: one on an elliptic curve, and ML-KEM, which holds against the quantum computers of the
// future. Together they cost both ends more than all else in a resumed handshake. A resumed session draws its secrets from the
// exchange and from the secret that came with the ticket. That one is from an earlier handshake, and whoever cannot read
// that session cannot read this one either: ML-KEM there protects what is said here. So a curve alone is enough for the exchange,
// and P-256 is the cheapest one. It keeps what it is for: a thief of the ticket keys cannot read what was recorded before.
//
// Should the server not resume, the curve would stand alone. Such a handshake is given up before the client has sent anything of
// its own, and made anew in full. It would be wasted often with servers that do not open each other's tickets; so it is tried only
// with those that say they do.
package resume

import (
	"crypto/tls"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/farspeak/farspeak/internal/wire"
)

// errNotResumed ends a handshake that is good enough for a resumed session only.
var errNotResumed = errors.New("the server did not resume the TLS session")

// curves are the key exchanges of a light handshake. X25519 is left out because clients would begin with it, which takes one and a half
// times as long as P-256.
var curves = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}

// Tickets remembers whether the servers open each other's tickets. The zero value does not know. Its methods are safe for
// concurrent use.
type Tickets struct{ shared atomic.Bool }

// Learn takes what a server says of itself in a response.
func (t *Tickets) Learn(response http.Header) {
	t.shared.Store(wire.HasFeature(response, wire.FeatureSharedTickets))
}

// Dial calls dial, which makes a connection with a finished handshake by a configuration: a light one when the session is
// likely to be resumed, and full, which has to name the server, otherwise or when it was not.
func (t *Tickets) Dial(full *tls.Config, dial func(*tls.Config) (*tls.Conn, error)) (*tls.Conn, error) {
	if t.shared.Load() && full.CurvePreferences == nil && holdsTicket(full) {
		if conn, err := dial(light(full)); !errors.Is(err, errNotResumed) {
			return conn, err
		}
	}
	return dial(full)
}

func holdsTicket(config *tls.Config) bool {
	if config.ClientSessionCache == nil {
		return false
	}
	ticket, ok := config.ClientSessionCache.Get(config.ServerName)
	return ok && ticket != nil
}

// light is a configuration for a resumed session, and no other.
func light(full *tls.Config) *tls.Config {
	config := full.Clone()
	config.CurvePreferences = curves
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume && state.Version >= tls.VersionTLS13 { // before that there is no ML-KEM to go back to
			return errNotResumed
		}
		if full.VerifyConnection == nil {
			return nil
		}
		return full.VerifyConnection(state)
	}
	return config
}
