package agentconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/config/textpb"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice" // the types that textservices may name
	_ "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// The directories of services below the configuration directory.
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

// ReadServices reads both directories. Files that cannot be used are skipped, with a problem each, and so is a missing
// directory. A later service replaces an earlier one of the same name: signed ones come first, text ones after them, each
// in the order of their file names.
func ReadServices(directory string) ([]*Service, textpb.Problems) {
	return readServices(directory, Settings{}.authorize)
}

func readServices(directory string, authorize func(*Service) error) ([]*Service, textpb.Problems) {
	l := &loader{authorize: authorize}
	l.directory(filepath.Join(directory, SignedServices), SignedService)
	l.directory(filepath.Join(directory, TextServices), TextService)
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

// loader collects services and problems of the directories.
type loader struct {
	authorize func(*Service) error

	services []*Service
	problems textpb.Problems
}

func (l *loader) directory(path string, read func(string) (*Service, error)) {
	entries, err := os.ReadDir(path)
	if err != nil {
		l.warn(textpb.Problem{File: path, Message: "no services are read from here: the directory cannot be listed",
			Remedy: "create it when there are services to run"})
		return
	}
	for _, e := range entries {
		s, err := read(filepath.Join(path, e.Name()))
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

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return os.IsNotExist(err)
}
