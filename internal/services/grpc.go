package services

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

const (
	// pingEvery is above the five minutes below which common gRPC servers take pings for abuse and hang up.
	pingEvery = 5*time.Minute + 30*time.Second
	// pingTimeout is also how long sent data may stay unacknowledged before a connection counts as dead.
	pingTimeout = 20 * time.Second
	// maxReconnectDelay keeps a backend that came back from waiting long for us.
	maxReconnectDelay = 5 * time.Second
	// maxReply bounds the answer of a backend, which is an empty message.
	maxReply = 64 << 10
	// replyWindow is how many bytes of answers may be on their way in a connection. Fixed windows spare both ends a ping and its answer
	// with nearly every message, by which the library would measure the line.
	replyWindow = 1 << 20
)

// defaultPermanentCodes are those that blame the message itself.
var defaultPermanentCodes = []codes.Code{codes.InvalidArgument}

// remote is a service behind gRPC. The connection is made by the first message. Messages go by a stream of ours if the backend
// offers it; large ones, and all those to the original's backends, are a call each.
type remote struct {
	conn      *grpc.ClientConn
	processor grpcservicepb.ProcessorClient
	streams   *streams
	permanent []codes.Code
}

func newRemote(b *Backend, permanent []codes.Code) (*remote, error) {
	creds := insecure.NewCredentials()
	if !b.Insecure {
		creds = credentials.NewClientTLSFromCert(b.Roots, "")
	}
	if permanent == nil {
		permanent = defaultPermanentCodes
	}
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = maxReconnectDelay
	conn, err := grpc.NewClient(b.Target,
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(maxReply),
		grpc.WithStaticConnWindowSize(replyWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: maxReconnectDelay}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(math.MaxInt32), grpc.MaxCallRecvMsgSize(maxReply)),
	)
	if err != nil {
		return nil, fmt.Errorf("config.target %q: %w", b.Target, err)
	}
	return &remote{
		conn: conn, processor: grpcservicepb.NewProcessorClient(conn), streams: newStreams(conn), permanent: permanent,
	}, nil
}

// Process hands a message to the backend once: what fails for now is tried again by the backlog, not here.
func (r *remote) Process(ctx context.Context, m *fspb.Message) error {
	err := errNotOffered
	if size := proto.Size(m); size <= maxStreamed && r.streams.offered() {
		err = r.stream(ctx, m, size)
	}
	if errors.Is(err, errNotOffered) {
		err = r.call(ctx, m)
	}
	return r.judge(err)
}

// call hands over a message by a call of its own.
func (r *remote) call(ctx context.Context, m *fspb.Message) error {
	var by peer.Peer
	_, err := r.processor.Process(ctx, m, grpc.Peer(&by))
	r.streams.called(&by)
	return err
}

// stream hands over a message of that size by a stream. It is encoded here: once the caller has gone the message is not ours.
func (r *remote) stream(ctx context.Context, m *fspb.Message, size int) error {
	body, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, size), m)
	if err != nil {
		return status.Errorf(codes.Internal, "encode the message: %v", err) // the code that a call of its own would end with
	}
	return r.streams.deliver(ctx, body)
}

// judge marks the error of a call.
func (r *remote) judge(err error) error {
	if err == nil {
		return nil
	}
	code := status.Code(err)
	switch {
	case slices.Contains(r.permanent, code):
		return Permanent(err)
	case code == codes.Unavailable || code == codes.DeadlineExceeded:
		return Unavailable(err)
	default:
		return err
	}
}

func (r *remote) Close() error {
	r.streams.close()
	return r.conn.Close()
}
