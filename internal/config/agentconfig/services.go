package agentconfig

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/config/textpb"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice" // the types that textservices may name
	_ "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// The directories of services below the configuration directory, and the keys below the registry's.
const (
	SignedServices = "services"     // binary fleetspeak.SignedClientServiceConfig
	TextServices   = "textservices" // text fleetspeak.ClientServiceConfig
)

// Service is the configuration of one local service.
type Service struct {
	Path      string // where it comes from
	Config    *fspb.ClientServiceConfig
	Signature []byte // empty for text services
	Signed    []byte // the bytes that the signature is about
}

// Services reads the services of both kinds. Files that cannot be used are skipped, with a problem each, and so is a missing
// directory. A later service replaces an earlier one of the same name: signed ones come first, text ones after them, each
// in the order of their names.
//
// Under a deployment key, services that may not run by it are problems as well (G-31), and replace no others.
func (c *Config) Services() ([]*Service, textpb.Problems) {
	l := &loader{authorize: c.Settings.authorize}
	l.kind(c.place(), SignedServices, SignedService)
	l.kind(c.place(), TextServices, TextService)
	return l.services, l.problems
}

// TextService reads one file of textservices, leniently.
func TextService(path string) (*Service, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Service{Path: path, Config: &fspb.ClientServiceConfig{}}
	if err := textpb.ParseLenient(path, text, s.Config); err != nil {
		return nil, err
	}
	return s.checked()
}

// SignedService reads one file of services. It does not verify the signature.
func SignedService(path string) (*Service, error) {
	b, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var signed fspb.SignedClientServiceConfig
	if err := proto.Unmarshal(b, &signed); err != nil {
		return nil, textpb.Problem{File: path, Message: "not a serialized fleetspeak.SignedClientServiceConfig", Remedy: "write it again"}
	}
	s := &Service{Path: path, Config: &fspb.ClientServiceConfig{}, Signature: signed.GetSignature(), Signed: signed.GetServiceConfig()}
	if err := proto.Unmarshal(s.Signed, s.Config); err != nil {
		return nil, textpb.Problem{File: path, Message: "holds no serialized fleetspeak.ClientServiceConfig", Remedy: "write it again"}
	}
	return s.checked()
}

// checked refuses the names that have a meaning of their own.
func (s *Service) checked() (*Service, error) {
	if slices.Contains([]string{"", "system", "client"}, s.Config.GetName()) {
		return nil, textpb.Problem{File: s.Path, Field: "name", Message: fmt.Sprintf("%q cannot be a service's name", s.Config.GetName()),
			Remedy: "name the service as its messages do"}
	}
	return s, nil
}

// loader collects services and problems.
type loader struct {
	authorize func(*Service) error

	services []*Service
	problems textpb.Problems
}

func (l *loader) kind(p place, kind string, read func(string) (*Service, error)) {
	paths, problems := p.services(kind)
	for _, problem := range problems {
		l.warn(problem)
	}
	for _, path := range paths {
		s, err := read(path)
		if err == nil {
			err = l.authorize(s)
		}
		if err != nil {
			l.warn(err)
			continue
		}
		l.add(s)
	}
}

func (l *loader) add(s *Service) {
	name := s.Config.GetName()
	i := slices.IndexFunc(l.services, func(old *Service) bool { return old.Config.GetName() == name })
	if i >= 0 {
		l.warn(textpb.Problem{File: s.Path, Message: fmt.Sprintf("replaces the service %q of %s", name, l.services[i].Path),
			Remedy: "remove one of the two"})
		l.services = slices.Delete(l.services, i, i+1)
	}
	l.services = append(l.services, s)
}

// warn notes a problem as a warning: the agent goes on without the file.
func (l *loader) warn(err error) {
	p, ok := err.(textpb.Problem)
	if !ok {
		p = textpb.Problem{Message: err.Error()}
	}
	p.Warning = true
	l.problems = append(l.problems, p)
}
