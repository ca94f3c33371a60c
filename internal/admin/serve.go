package admin

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Limits of connections.
const (
	// maxStreams bounds the calls under way on one connection; the caller waits for one to end.
	maxStreams = 1024
	// connectTimeout bounds TLS and HTTP/2 handshakes.
	connectTimeout = 10 * time.Second
	// maxHeaderBytes bounds the metadata of a call.
	maxHeaderBytes = 32 << 10

	// idleConnection is after what time a connection without calls is closed; backends send KeepAlive every few seconds, and
	// the others' libraries connect again with their next call.
	idleConnection = 5 * time.Minute
	// pingAfter and pingTimeout find peers that are gone without a farewell.
	pingAfter   = 2 * time.Minute
	pingTimeout = 20 * time.Second
	// callWorkers is how many goroutines answer one call after the other. A new one for each call would copy its stack to a
	// larger one two or three times before the message is in the batcher; calls beyond that many still get one.
	callWorkers = 128
	// streamWindow and connectionWindow are how many bytes may be on their way from a caller, in one call and in all of a connection;
	// what calls may leave unread is streamWindow for each of maxStreams. Fixed windows spare the library its measurements of
	// the line: a ping and its answer with nearly every call.
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
	// minPing is how often callers may ping. Libraries differ in what they do by default, and pings cost little.
	minPing = time.Second
)

// newGRPC makes the gRPC server with all its services.
func (s *Server) newGRPC() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(s.cfg.MaxReplyBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleConnection, Time: pingAfter, Timeout: pingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.InTapHandle(s.admission.admit),
		grpc.StatsHandler(s.admission),
		grpc.UnaryInterceptor(s.guard.unary),
		grpc.StreamInterceptor(s.guard.stream),
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(callWorkers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
	}
	if s.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.cfg.TLS)))
	}
	server := grpc.NewServer(options...)
	serverpb.RegisterAdminServer(server, s.service)
	controlpb.RegisterControlServer(server, &control{store: s.cfg.Store})
	healthpb.RegisterHealthServer(server, s.health)
	if s.cfg.Reflection {
		reflection.Register(server)
	}
	return server
}
