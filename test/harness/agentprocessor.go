package harness

import (
	"context"
	"net"
	"sync"

	"google.golang.org/protobuf/types/known/anypb"

	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/sdk/backend"
)

// AddProcessor routes a service to a handler, in a backend that is made of the SDK as those of users are. It serves until
// the test ends. The result is the server's side of the service, which a test may change before a server starts.
func (s *Site) AddProcessor(service string, handler backend.Handler) *serverpb.ServiceConfig {
	s.tb.Helper()
	processor, err := backend.NewProcessor(backend.ProcessorConfig{Services: map[string]backend.Handler{service: handler}})
	if err != nil {
		s.tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	config, err := anypb.New(&grpcservicepb.Config{Target: listener.Addr().String(), Insecure: true})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.serve(processor, listener)
	added := &serverpb.ServiceConfig{Name: service, Factory: "GRPC", Config: config}
	s.Services.Services = append(s.Services.Services, added)
	return added
}

// serve has a processor work until the test ends, and waits for it then.
func (s *Site) serve(processor *backend.Processor, listener net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := processor.Serve(ctx, listener); err != nil {
			s.tb.Error(err)
		}
	})
	s.tb.Cleanup(func() {
		cancel()
		serving.Wait()
	})
}
