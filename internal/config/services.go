package config

import (
	"crypto/x509"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/config/textpb"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/cpsservice" // configurations of this type are read, then refused
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Factories of services.
const (
	FactoryNOOP = "NOOP"
	FactoryGRPC = "GRPC"
	FactoryCPS  = "CPS"
)

// reservedNames cannot be names of services.
var reservedNames = []string{"", "system", "client"}

// Services is services.config.
type Services struct {
	Services          []Service // in the order of the file, without those that a later one of the same name replaces
	BroadcastPollTime time.Duration

	Warnings textpb.Problems
}

// Service is a server-side service.
type Service struct {
	Name           string
	Factory        string // FactoryNOOP or FactoryGRPC
	MaxParallelism int
	GRPC           *GRPCService // with FactoryGRPC
}

// GRPCService is a backend that takes messages by gRPC.
type GRPCService struct {
	Target   string
	Insecure bool           // plaintext
	Roots    *x509.CertPool // trusted for TLS; nil when Insecure
}

// LoadServices reads a services file; an empty one is valid. The error has a line for each problem.
func LoadServices(path string) (*Services, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, problems := parseServices(path, text)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	s.Warnings = problems.Warnings()
	return s, nil
}

func parseServices(path string, text []byte) (*Services, textpb.Problems) {
	var pb serverpb.ServerConfig
	doc := textpb.Parse(path, text, &pb)
	r := doc.NewReport()
	s := &Services{BroadcastPollTime: pollTime(r, "broadcast_poll_time", pb.GetBroadcastPollTime())}
	for i, p := range pb.GetServices() {
		s.add(r, fmt.Sprintf("services[%d]", i), service(r, fmt.Sprintf("services[%d].", i), p))
	}
	return s, textpb.Join(doc.Faults(), r.Problems())
}

// pollTime is duration for a setting that the original takes at any length: what is out of range becomes what is nearest.
func pollTime(r *textpb.Report, field string, d *durationpb.Duration) time.Duration {
	v := d.AsDuration()
	used := min(max(v, broadcastPollTime.least), broadcastPollTime.most)
	if !d.IsValid() || v <= 0 || v == used {
		return duration(r, field, d, broadcastPollTime)
	}
	r.Warn(field, fmt.Sprintf("%v is out of range, %v is used", v, used),
		fmt.Sprintf("write from %v to %v, or leave it out for %v", broadcastPollTime.least, broadcastPollTime.most, broadcastPollTime.standard))
	return used
}

// add replaces an earlier service of the same name, as the original does.
func (s *Services) add(r *textpb.Report, at string, svc Service) {
	i := slices.IndexFunc(s.Services, func(old Service) bool { return old.Name == svc.Name })
	if i >= 0 && svc.Name != "" {
		r.Warn(at+".name", fmt.Sprintf("replaces an earlier service named %q", svc.Name), "remove one of the two")
		s.Services = slices.Delete(s.Services, i, i+1)
	}
	s.Services = append(s.Services, svc)
}

// service reads one entry; at ends with a dot.
func service(r *textpb.Report, at string, pb *serverpb.ServiceConfig) Service {
	s := Service{Name: pb.GetName(), Factory: pb.GetFactory(), MaxParallelism: defaultParallelism}
	if n := pb.GetMaxParallelism(); n > 0 {
		s.MaxParallelism = int(min(n, math.MaxInt32))
	}
	switch {
	case s.Name == "":
		r.Error(at+"name", "absent", "name the service as its messages do")
	case slices.Contains(reservedNames, s.Name):
		r.Error(at+"name", fmt.Sprintf("%q is reserved", s.Name), "choose another name")
	}
	switch s.Factory {
	case FactoryNOOP:
	case FactoryGRPC:
		s.GRPC = grpcService(r, at+"config", pb.GetConfig())
	case FactoryCPS:
		r.Error(at+"factory", "CPS (Cloud Pub/Sub) is not built in",
			"use GRPC with a backend that publishes, or NOOP to discard the messages")
	default:
		unknownFactory(r, at+"factory", s.Factory)
	}
	return s
}

func unknownFactory(r *textpb.Report, field, factory string) {
	if factory == "" {
		r.Error(field, "absent", "write NOOP or GRPC, in quotes")
		return
	}
	remedy := "known: NOOP, GRPC"
	if near := textpb.Nearest(factory, []string{FactoryNOOP, FactoryGRPC}); near != "" {
		remedy = fmt.Sprintf("did you mean %s?", near)
	}
	r.Error(field, fmt.Sprintf("unknown factory %q", factory), remedy)
}

func grpcService(r *textpb.Report, field string, config *anypb.Any) *GRPCService {
	const name = "fleetspeak.grpcservice.Config"
	var pb grpcservicepb.Config
	url := config.GetTypeUrl()
	switch {
	case config == nil || url == "":
		r.Error(field, "absent", "write config { [type.googleapis.com/"+name+"] { target: \"host:port\" ... } }")
		return nil
	case url[strings.LastIndexByte(url, '/')+1:] != name:
		r.Error(field, fmt.Sprintf("is a %s", url[strings.LastIndexByte(url, '/')+1:]), "the factory GRPC takes a "+name)
		return nil
	}
	if err := proto.Unmarshal(config.GetValue(), &pb); err != nil {
		r.Error(field+".value", "is not a serialized "+name, "write config { [type.googleapis.com/"+name+"] { ... } }")
		return nil
	}
	return grpcTarget(r, field+".", &pb)
}

func grpcTarget(r *textpb.Report, at string, pb *grpcservicepb.Config) *GRPCService {
	g := &GRPCService{Target: pb.GetTarget(), Insecure: pb.GetInsecure()}
	if g.Target == "" {
		r.Error(at+"target", "absent", `write where the backend listens, for example "localhost:6063"`)
	}
	switch {
	case g.Insecure && pb.GetCertFile() != "":
		r.Warn(at+"cert_file", "without effect, since insecure is true", "remove one of the two")
	case g.Insecure:
	case pb.GetCertFile() == "":
		r.Error(at+"cert_file", "absent", "name a PEM file with the roots to trust, or write insecure: true for plaintext")
	default:
		g.Roots = authorities(r, at+"cert_file", pb.GetCertFile())
	}
	return g
}
