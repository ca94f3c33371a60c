package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	defaultTryTimeout = 10 * time.Second
	defaultTimeout    = 30 * time.Second

	// maxReconnectDelay keeps an fs-admin that came back from waiting long for us.
	maxReconnectDelay = 2 * time.Second
	// pingEvery is above the five minutes below which common gRPC servers take pings for abuse and hang up.
	pingEvery   = 5*time.Minute + 30*time.Second
	pingTimeout = 20 * time.Second
	// maxReceive bounds one answer. Listing all clients is one message.
	maxReceive = 1 << 30
	// streamWindow and connectionWindow are how many bytes may be on their way to us, in one call and in all of a connection. Fixed
	// windows spare both ends a ping and its answer with nearly every call, by which the library would measure the line.
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20

	// keepAliveEvery and keepAliveTimeout are those of other backends in the field.
	keepAliveEvery   = 5 * time.Second
	keepAliveTimeout = time.Second
)

// SubmitterConfig says where fs-admin is and how long to try.
type SubmitterConfig struct {
	// Address is host:port, unix:PATH, or any other gRPC target.
	Address string
	// Source is the service name under which messages are sent that have no source. Answers often go to it.
	Source string
	// TLS is for the connection; nil is plaintext. See LoadTLS.
	TLS *tls.Config
	// Token is the bearer token that goes with each call; empty is none. It goes over TLS, or stays on this machine.
	Token string
	// TryTimeout bounds one try of Submit, 0 means 10 s.
	TryTimeout time.Duration
	// Timeout bounds all tries of one Submit, pauses included; 0 means 30 s. A context may end earlier.
	Timeout time.Duration
}

// Submitter gives messages to fs-admin. Its methods may be called from any goroutine.
type Submitter struct {
	cfg   SubmitterConfig
	conn  *grpc.ClientConn
	admin serverpb.AdminClient
}

// NewSubmitter prepares a connection, which the first call makes. It fails on bad configuration only.
func NewSubmitter(cfg SubmitterConfig) (*Submitter, error) {
	cfg.TryTimeout = cmp.Or(cfg.TryTimeout, defaultTryTimeout)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Address == "" {
		return nil, errors.New("SubmitterConfig.Address is empty")
	}
	options, err := cfg.dialOptions()
	if err != nil {
		return nil, fmt.Errorf("SubmitterConfig: %w", err)
	}
	conn, err := grpc.NewClient(cfg.Address, options...)
	if err != nil {
		return nil, fmt.Errorf("SubmitterConfig.Address: %w", err)
	}
	return &Submitter{cfg: cfg, conn: conn, admin: serverpb.NewAdminClient(conn)}, nil
}

func (cfg *SubmitterConfig) dialOptions() ([]grpc.DialOption, error) {
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = maxReconnectDelay
	transport := insecure.NewCredentials()
	if cfg.TLS != nil {
		transport = credentials.NewTLS(cfg.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: maxReconnectDelay}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		grpc.WithNoProxy(), // fs-admin is on the own network; the proxies of the environment lead elsewhere
	}
	if cfg.Token != "" {
		if cfg.TLS == nil && !isLocal(cfg.Address) {
			return nil, fmt.Errorf("the token would go to %s unencrypted: set TLS, or use a local address", cfg.Address)
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(cfg.Token)))
	}
	return options, nil
}

// Close ends the connection, and with it all calls.
func (s *Submitter) Close() error { return s.conn.Close() }

// Admin is the whole interface of fs-admin on the same connection: clients, broadcasts, message status and so on. Nothing
// is repeated there.
func (s *Submitter) Admin() serverpb.AdminClient { return s.admin }

// Submit gives a message to fs-admin until it is stored, and returns an error if that cannot be or takes too long.
//
// It fixes what the message has not got in m itself before the first try: the message ID and the source. So m may be
// submitted again after any error, and is still the same message; the one that was stored first counts. Nobody else may
// use m meanwhile.
//
// An error that has the gRPC code INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNAUTHENTICATED or the like is final
// and comes at once; all others are tried again until the time is over, UNKNOWN too, which is all that the original's
// fs-admin says of anything.
func (s *Submitter) Submit(ctx context.Context, m *fspb.Message) error {
	if err := s.complete(m); err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.TryTimeout)
		defer cancel()
		_, err := s.admin.InsertMessage(ctx, m)
		return err
	})
	if err != nil {
		return fmt.Errorf("submit message %x to service %q of client %x: %w",
			m.MessageId, m.Destination.ServiceName, m.Destination.ClientId, err)
	}
	return nil
}

// complete fills in what identifies a message, and refuses what can never be stored.
func (s *Submitter) complete(m *fspb.Message) error {
	if m.GetDestination().GetServiceName() == "" {
		return errors.New("the message has no destination service")
	}
	if m.Source == nil {
		m.Source = &fspb.Address{ServiceName: s.cfg.Source}
	}
	if m.Source.ServiceName == "" {
		return errors.New("the message has no source service, and SubmitterConfig.Source is empty")
	}
	switch len(m.MessageId) {
	case 0:
		m.MessageId = newMessageID()
	case MessageIDSize:
	default:
		return fmt.Errorf("message ID of %d bytes, want %d or none", len(m.MessageId), MessageIDSize)
	}
	if size := proto.Size(m); size > MaxMessage && len(m.Destination.ClientId) > 0 {
		return fmt.Errorf("message of %d bytes to a client, at most %d are allowed", size, MaxMessage)
	}
	return nil
}

// Ping asks fs-admin for a sign of life and waits for it a second.
func (s *Submitter) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keepAliveTimeout)
	defer cancel()
	if _, err := s.admin.KeepAlive(ctx, &fspb.EmptyMessage{}); err != nil {
		return fmt.Errorf("ping fs-admin: %w", err)
	}
	return nil
}

// KeepAlive pings fs-admin every five seconds until ctx ends. That keeps the connection from being dropped by what is in
// between, and finds out early when it was. failed is told of each ping that failed; it may be nil.
func (s *Submitter) KeepAlive(ctx context.Context, failed func(error)) {
	ticker := time.NewTicker(keepAliveEvery)
	defer ticker.Stop()
	for {
		if err := s.Ping(ctx); err != nil && failed != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
