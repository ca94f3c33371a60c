package limit

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// ErrBusy says that a handshake was refused because too many are under way.
var ErrBusy = errors.New("limit: too many handshakes")

// HandshakeConfig describes Handshakes.
type HandshakeConfig struct {
	// Concurrent is how many signatures are computed at a time. Needed. A few for each core keep the cores busy.
	Concurrent int
	// Queue is how many handshakes may wait for that; more are refused at once. Needed.
	Queue int
	// Wait is how long one may wait. It should end before the peer gives up, so that no work is done for nobody. Needed.
	Wait time.Duration
	// OnRefuse is told of each handshake that is refused. It may be called by several goroutines at a time. Nil means that
	// nobody is told.
	OnRefuse func()
}

// Handshakes is a line in which full TLS handshakes wait for their signature. Resumed sessions need none and pass. It is
// safe for concurrent use.
type Handshakes struct {
	cfg     HandshakeConfig
	slots   chan struct{}
	waiting atomic.Int64
}

// NewHandshakes returns an empty line.
func NewHandshakes(cfg HandshakeConfig) (*Handshakes, error) {
	if cfg.Concurrent <= 0 || cfg.Queue <= 0 || cfg.Wait <= 0 {
		return nil, fmt.Errorf("limit: %d handshakes at a time, %d waiting for up to %v", cfg.Concurrent, cfg.Queue, cfg.Wait)
	}
	if cfg.OnRefuse == nil {
		cfg.OnRefuse = func() {}
	}
	return &Handshakes{cfg: cfg, slots: make(chan struct{}, cfg.Concurrent)}, nil
}

// Certificate returns a certificate with the same key, whose signatures wait in line. A handshake that cannot have one in
// time fails with ErrBusy.
func (h *Handshakes) Certificate(certificate tls.Certificate) (tls.Certificate, error) {
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return tls.Certificate{}, fmt.Errorf("limit: a private key of type %T cannot sign", certificate.PrivateKey)
	}
	certificate.PrivateKey = &signer{Signer: key, line: h}
	return certificate, nil
}

// Waiting is how many handshakes are in line.
func (h *Handshakes) Waiting() int { return int(h.waiting.Load()) }

// acquire waits for a slot.
func (h *Handshakes) acquire() error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > int64(h.cfg.Queue) {
		return ErrBusy
	}
	timer := time.NewTimer(h.cfg.Wait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrBusy
	}
}

func (h *Handshakes) release() { <-h.slots }

// signer is a private key with a line before it.
type signer struct {
	crypto.Signer
	line *Handshakes
}

func (s *signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.line.acquire(); err != nil {
		s.line.cfg.OnRefuse()
		return nil, err
	}
	defer s.line.release()
	return s.Signer.Sign(random, digest, opts)
}
