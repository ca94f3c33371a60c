// Package resume spares both ends of a TLS connection a part of the key exchange when the client holds a ticket.
//
// The usual key exchange has two halves: X25519, and ML-KEM, which holds against the quantum computers of the future. A resumed
// session draws its secrets from the exchange and from the secret that came with the ticket. If that one is from a session whose
// keys were agreed by ML-KEM, whoever only listened can get neither, so a curve alone is enough for the exchange, and P-256 is the
// cheapest one. It keeps what it is for: who steals the key of a ticket cannot read what was recorded, as long as P-256 holds.
//
// That is also the price: with the key of one ticket, and a quantum computer one day, a session begun by that ticket can be read,
// and with the tickets in it those after it. So the chain of such sessions is bounded: every few hours ML-KEM has its part again.
//
// Should the server not resume, the curve would stand alone. Such a handshake is given up before the client has sent anything of
// its own, and made anew in full. That would be wasted often with servers that do not open each other's tickets; so it is tried only
// with those that say they do.
package resume

import (
	"crypto/tls"
	"errors"
	"slices"
	"time"
)

// MaxChain is how long after ML-KEM had its part in a handshake those that follow may leave it out. It is half of the time for
// which servers open their tickets at least, so that a machine that slept for longer does not try in vain.
const MaxChain = 12 * time.Hour

// errNotResumed ends a handshake that is good enough for a resumed session only.
var errNotResumed = errors.New("the server did not resume the TLS session")

// light are the key exchanges of a light handshake. X25519 is left out because clients would begin with it, which takes
// one and a half times as long as P-256.
var light = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}

// strong are those with ML-KEM.
var strong = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}

// Dial calls dial, which makes a connection with a finished handshake by a configuration: a light one when the session is
// likely to be resumed, one in full otherwise, or when it was not. The given configuration has to name the server; tickets
// are taken from the Cache and go there, whatever cache the configuration has. One that chooses its key exchanges keeps them.
func (c *Cache) Dial(config *tls.Config, dial func(*tls.Config) (*tls.Conn, error)) (*tls.Conn, error) {
	if protected, ok := c.mayBeLight(config.ServerName); ok && config.CurvePreferences == nil {
		conn, err := c.dialWith(lightConfig(config), protected, dial)
		if !errors.Is(err, errNotResumed) {
			return conn, err
		}
	}
	return c.dialWith(config.Clone(), time.Time{}, dial)
}

// dialWith dials and notes when ML-KEM last had its part: in this handshake, or when it did in the session that is resumed.
func (c *Cache) dialWith(config *tls.Config, protected time.Time, dial func(*tls.Config) (*tls.Conn, error)) (*tls.Conn, error) {
	tickets := &tickets{cache: c, protected: protected}
	config.ClientSessionCache = tickets
	conn, err := dial(config)
	if err != nil {
		tickets.failed(config.ServerName)
		return nil, err
	}
	if slices.Contains(strong, conn.ConnectionState().CurveID) {
		tickets.protected = wallClock() // TLS 1.3 brings tickets with what is read after the handshake: nobody has read yet
	}
	return conn, nil
}

// wallClock is a time whose distance to others includes times of sleep.
func wallClock() time.Time { return time.Now().Round(0) }

// lightConfig is a configuration for a resumed session, and no other.
func lightConfig(full *tls.Config) *tls.Config {
	config := full.Clone()
	config.CurvePreferences = light
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume {
			return errNotResumed
		}
		if full.VerifyConnection == nil {
			return nil
		}
		return full.VerifyConnection(state)
	}
	return config
}
