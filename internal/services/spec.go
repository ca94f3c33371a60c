package services

import (
	"crypto/x509"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/farspeak/farspeak/internal/store"
)

// Factories of services.
const (
	FactoryNOOP = "NOOP" // takes every message and forgets it
	FactoryGRPC = "GRPC" // calls Processor.Process of a backend
)

// Spec is one configured service.
type Spec struct {
	Name string
	// Factory is one of the Factory constants. Ignored when Service is set.
	Factory string
	// MaxParallelism bounds the Process calls under way at once. 0 means DefaultMaxParallelism.
	MaxParallelism int
	// GRPC belongs to FactoryGRPC.
	GRPC *Backend
	// Service is a ready service of the embedding program. The Manager closes it.
	Service Service
}

// Backend says how a backend is reached.
type Backend struct {
	Target   string // as gRPC dials it
	Insecure bool   // plaintext
	// Roots are trusted for TLS; needed unless Insecure, which wins.
	Roots *x509.CertPool
}

// check finds what can be found without a connection.
func (s *Spec) check() error {
	switch {
	case s.Name == "" || s.Name == systemName || s.Name == "client":
		return errors.New(`name: empty, "system" and "client" are not for services; choose another`)
	case utf8.RuneCountInString(s.Name) > store.MaxName:
		return fmt.Errorf("name: %d bytes; at most %d characters are possible", len(s.Name), store.MaxName)
	case s.MaxParallelism < 0:
		return errors.New("max_parallelism: negative")
	case s.Service != nil || s.Factory == FactoryNOOP:
		return nil
	case s.Factory != FactoryGRPC:
		return fmt.Errorf("factory: %q is unknown; use GRPC or NOOP", s.Factory)
	case s.GRPC == nil || s.GRPC.Target == "":
		return errors.New("config.target: missing")
	case !s.GRPC.Insecure && s.GRPC.Roots == nil:
		return errors.New("config: neither insecure nor cert_file is set; set one of them")
	}
	return nil
}
