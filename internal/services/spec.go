package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/golang/glog"
	"google.golang.org/grpc/codes"

	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Factories of services.
const (
	FactoryNOOP = "NOOP" // takes every message and forgets it
	FactoryGRPC = "GRPC" // calls Processor.Process of a backend
)

// maxName bounds names of services and message types in bytes: the columns of the store.
const maxName = 128

// Spec is one configured service.
type Spec struct {
	Name string
	// Factory is one of the Factory constants. Ignored when Service is set.
	Factory string
	// MaxParallelism bounds the Process calls under way at once. 0 means DefaultMaxParallelism.
	MaxParallelism int
	// GRPC belongs to FactoryGRPC.
	GRPC *grpcservicepb.Config
	// Service is a ready service of the embedding program. The Manager closes it.
	Service Service
}

// Specs reads the services of a configuration file. A name that appears twice means the later one, as it always did.
func Specs(cfg *serverpb.ServerConfig) ([]Spec, error) {
	var specs []Spec
	var faults []error
	for i, sc := range cfg.GetServices() {
		spec, err := specOf(sc)
		if err == nil {
			err = spec.check()
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("services[%d] %q: %w", i, sc.GetName(), err))
			continue
		}
		if at := slices.IndexFunc(specs, func(s Spec) bool { return s.Name == spec.Name }); at >= 0 {
			glog.Warningf("service %q is configured twice; the later configuration counts", spec.Name)
			specs[at] = spec
			continue
		}
		specs = append(specs, spec)
	}
	return specs, errors.Join(faults...)
}

func specOf(sc *serverpb.ServiceConfig) (Spec, error) {
	spec := Spec{Name: sc.GetName(), Factory: sc.GetFactory(), MaxParallelism: int(sc.GetMaxParallelism())}
	if spec.Factory != FactoryGRPC {
		return spec, nil
	}
	if sc.GetConfig() == nil {
		return spec, errors.New("config: missing; give a [type.googleapis.com/fleetspeak.grpcservice.Config]")
	}
	spec.GRPC = new(grpcservicepb.Config)
	if err := sc.Config.UnmarshalTo(spec.GRPC); err != nil {
		return spec, fmt.Errorf("config: %w", err)
	}
	return spec, nil
}

// check finds what can be found without a connection.
func (s *Spec) check() error {
	switch {
	case s.Name == "" || s.Name == systemName || s.Name == "client":
		return errors.New(`name: empty, "system" and "client" are not for services; choose another`)
	case len(s.Name) > maxName:
		return fmt.Errorf("name: %d bytes; at most %d are possible", len(s.Name), maxName)
	case s.MaxParallelism < 0:
		return errors.New("max_parallelism: negative")
	case s.Service != nil || s.Factory == FactoryNOOP:
		return nil
	case s.Factory == FactoryGRPC:
		_, err := dialCredentials(s.GRPC)
		return err
	case s.Factory == "CPS":
		return errors.New("factory: CPS (Google Pub/Sub) is not supported; use GRPC with a backend that publishes")
	default:
		return fmt.Errorf("factory: %q is unknown; use GRPC or NOOP", s.Factory)
	}
}

// ParseCodes reads names of gRPC codes, such as INVALID_ARGUMENT, for Config.PermanentCodes.
func ParseCodes(names []string) ([]codes.Code, error) {
	var parsed []codes.Code
	for _, name := range names {
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("gRPC code %q: %w", name, err)
		}
		var code codes.Code
		if err := code.UnmarshalJSON(quoted); err != nil || code == codes.OK {
			return nil, fmt.Errorf("gRPC code %q: no code that an error can have; write it like INVALID_ARGUMENT", name)
		}
		parsed = append(parsed, code)
	}
	return parsed, nil
}
