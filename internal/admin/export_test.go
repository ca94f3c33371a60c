package admin

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/tap"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds that tests reach.
const (
	MaxCalls         = maxCalls
	MaxBulk          = maxBulk
	MaxWatches       = maxWatches
	MaxProbesOfOne   = maxProbesOfOne
	MaxFromOneSource = maxFromOneSource
	PendingIDs       = pendingIDs
)

// Limited bounds the connections of a listener.
var Limited = limited

// Audited is what the audit log says of a request at the verbosity of the process.
var Audited = audited

// Subject is what the audit log says of a request.
var Subject = subject

// Pretend counts calls that are not there, and the bytes of their requests.
func (s *Server) Pretend(calls, bytes int64) {
	s.admission.calls.Add(calls)
	s.admission.bytes.Add(bytes)
}

// Load is how many calls are under way, and the bytes of their requests.
func (s *Server) Load() (calls, bytes int64) {
	return s.admission.calls.Load(), s.admission.bytes.Load()
}

// Bulk is how many calls are making a large answer.
func (s *Server) Bulk() int { return len(s.service.bulk) }

// BulkCall is a call that made a large answer and has returned from its handler; end is what the gRPC server says when the
// answer has been sent.
func (s *Server) BulkCall(t testing.TB) (end func()) {
	t.Helper()
	ctx, err := s.admission.admit(t.Context(), &tap.Info{FullMethodName: "/fleetspeak.server.Admin/ListClients"})
	if err != nil {
		t.Fatal(err)
	}
	s.admission.HandleRPC(ctx, &stats.Begin{})
	_, err = s.guard.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "ListClients"}, func(ctx context.Context, _ any) (any, error) {
		return nil, s.service.enterBulk(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() { s.admission.HandleRPC(ctx, &stats.End{}) }
}

// Insert calls InsertMessage as the gRPC server does, without a network.
func (s *Server) Insert(ctx context.Context, m *fspb.Message) error {
	_, err := s.guard.unary(ctx, m, &grpc.UnaryServerInfo{FullMethod: "/fleetspeak.server.Admin/InsertMessage"},
		func(ctx context.Context, request any) (any, error) {
			return s.service.InsertMessage(ctx, request.(*fspb.Message))
		})
	return err
}

// RoundTrip reads a page token and writes it again.
func RoundTrip(token string) (again string, err error) {
	c, err := parseLetterCursor(token)
	return c.token(), err
}
