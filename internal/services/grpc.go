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
	"google.golang.org/grpc/status"

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
)

// defaultPermanentCodes are those that blame the message itself.
var defaultPermanentCodes = []codes.Code{codes.InvalidArgument}

// backend is a service behind gRPC. The connection is made by the first message.
type backend struct {
	conn      *grpc.ClientConn
	processor grpcservicepb.ProcessorClient
	permanent []codes.Code
}

func newBackend(cfg *grpcservicepb.Config, permanent []codes.Code) (*backend, error) {
	creds, err := dialCredentials(cfg)
	if err != nil {
		return nil, err
	}
	if permanent == nil {
		permanent = defaultPermanentCodes
	}
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = maxReconnectDelay
	conn, err := grpc.NewClient(cfg.GetTarget(),
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: maxReconnectDelay}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(math.MaxInt32), grpc.MaxCallRecvMsgSize(maxReply)),
	)
	if err != nil {
		return nil, fmt.Errorf("config.target %q: %w", cfg.GetTarget(), err)
	}
	return &backend{conn: conn, processor: grpcservicepb.NewProcessorClient(conn), permanent: permanent}, nil
}

// dialCredentials reads the roots to trust. Insecure wins over a certificate file, as it always did.
func dialCredentials(cfg *grpcservicepb.Config) (credentials.TransportCredentials, error) {
	switch {
	case cfg.GetTarget() == "":
		return nil, errors.New("config.target: missing")
	case cfg.GetInsecure():
		return insecure.NewCredentials(), nil
	case cfg.GetCertFile() == "":
		return nil, errors.New("config: neither insecure nor cert_file is set; set one of them")
	}
	creds, err := credentials.NewClientTLSFromFile(cfg.CertFile, "")
	if err != nil {
		return nil, fmt.Errorf("config.cert_file: %w", err)
	}
	return creds, nil
}

// Process calls the backend once: what fails for now is tried again by the backlog, not here.
func (b *backend) Process(ctx context.Context, m *fspb.Message) error {
	_, err := b.processor.Process(ctx, m)
	if err == nil {
		return nil
	}
	code := status.Code(err)
	switch {
	case slices.Contains(b.permanent, code):
		return Permanent(err)
	case code == codes.Unavailable || code == codes.DeadlineExceeded:
		return Unavailable(err)
	default:
		return err
	}
}

func (b *backend) Close() error { return b.conn.Close() }
