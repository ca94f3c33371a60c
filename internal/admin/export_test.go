package admin

import (
	"context"

	"google.golang.org/grpc"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// MaxCalls is a bound that tests reach.
const MaxCalls = maxCalls

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
