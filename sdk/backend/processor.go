package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

const (
	// defaultParallelism is how many calls an fs-server makes at once of itself.
	defaultParallelism = 100
	// defaultWaiting is how many calls may wait for others to end.
	defaultWaiting = 1000
	// defaultMaxMessage is more than any message of a Daemon or Socket service; those of Stdin services are the original's
	// affair, and may be larger than the 4 MiB of other gRPC servers.
	defaultMaxMessage = 16 << 20
	// minMaxMessage has room for what fs-server sends of small messages at once.
	minMaxMessage = 256 << 10
	// maxCallsPerConnection bounds what one peer can make us hold, in calls, and in messages of one stream.
	maxCallsPerConnection = 1000
	// finishTimeout is how long calls under way may take when serving ends; an fs-server waits no longer for them.
	finishTimeout = 30 * time.Second
	// minPing is how often a peer may ping.
	minPing = 30 * time.Second
)

// A Handler takes a message from a client. Its error says what becomes of the message:
//
//   - nil: it is done. Neither the server nor the client keeps it any longer.
//   - marked with Permanent: the message will never be good, and fails.
//   - marked with Unavailable: the backend can do nothing at all at present. The message comes again, and the server may
//     wait a while with all others.
//   - any other error, or a panic: the message comes again later.
//
// A gRPC code in an error means nothing, so that one from another service of the backend does no harm.
//
// ctx ends with the time that the server waits, or with the connection; which does not mean that the message is lost: it comes
// again.
type Handler func(ctx context.Context, m *fspb.Message) error

// ProcessorConfig says who handles what.
type ProcessorConfig struct {
	// Services has a handler for each service, under its name in the services file of fs-server.
	Services map[string]Handler
	// Parallelism is how many handlers run at once; 0 means 100.
	Parallelism int
	// Waiting is how many further messages wait for that; 0 means 1000. What comes beyond is sent back to come again later.
	Waiting int
	// MaxMessage is the largest message in bytes; 0 means 16 MiB, and less than 256 KiB means 256 KiB: that much is several
	// small messages at once. A larger one is refused, for good.
	MaxMessage int
	// TLS is for Serve; nil is plaintext. See TLSFiles.
	TLS *tls.Config
	// Failed is told of each message that was not taken, and why; a *PanicError is among the errors it gets. It is called
	// from many goroutines. Nil: nobody is told.
	Failed func(m *fspb.Message, err error)
}

// Processor is the interface that fs-server delivers messages to. Serve makes it a server of its own; Register adds it to a
// grpc.Server that there is. An fs-server of ours sends many messages on a stream, the original's calls Process for each; the
// handlers see no difference.
type Processor struct {
	grpcservicepb.UnimplementedProcessorServer

	cfg     ProcessorConfig
	places  chan struct{} // a token for each message, running or waiting
	running chan struct{} // a token for each handler that runs

	drain    sync.Once
	draining chan struct{} // closed by Drain
}

// NewProcessor makes a Processor.
func NewProcessor(cfg ProcessorConfig) (*Processor, error) {
	if len(cfg.Services) == 0 {
		return nil, errors.New("ProcessorConfig: no services")
	}
	for name, handler := range cfg.Services {
		if name == "" || handler == nil {
			return nil, fmt.Errorf("ProcessorConfig: service %q needs a name and a handler", name)
		}
	}
	if cfg.Parallelism <= 0 {
		cfg.Parallelism = defaultParallelism
	}
	if cfg.Waiting <= 0 {
		cfg.Waiting = defaultWaiting
	}
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	cfg.MaxMessage = max(cfg.MaxMessage, minMaxMessage)
	cfg.Services = maps.Clone(cfg.Services)
	return &Processor{
		cfg:     cfg,
		places:  make(chan struct{}, cfg.Parallelism+cfg.Waiting),
		running: make(chan struct{}, cfg.Parallelism),

		draining: make(chan struct{}),
	}, nil
}

// Register adds the Processor to a server, for calls and for streams. Whoever stops that server gracefully calls Drain before.
// The server's limit for a received message should be 256 KiB at least, as gRPC's default is.
func (p *Processor) Register(server grpc.ServiceRegistrar) {
	grpcservicepb.RegisterProcessorServer(server, p)
	backendpb.RegisterReceiverServer(server, receiver{p: p})
}

// Drain lets each fs-server end its streams when it has the outcomes of what is under way: a server that stops gracefully
// would wait for them. Serve does it by itself.
func (p *Processor) Drain() { p.drain.Do(func() { close(p.draining) }) }

// Serve takes messages from a listener, which it closes, until ctx ends. It returns when the handlers that ran then have
// ended, or half a minute later; what they did not finish comes again.
func (p *Processor) Serve(ctx context.Context, listener net.Listener) error {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(p.cfg.MaxMessage),
		grpc.MaxConcurrentStreams(maxCallsPerConnection),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
	if p.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.cfg.TLS)))
	}
	server := grpc.NewServer(options...)
	p.Register(server)
	stopped := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timer := time.AfterFunc(finishTimeout, server.Stop)
		defer timer.Stop()
		p.Drain()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if undo() { // it ended by itself
		server.Stop()
	} else {
		<-stopped
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve Processor: %w", err)
	}
	return nil
}

// Process handles one message. It is what the original's fs-server calls, and ours for large messages.
func (p *Processor) Process(ctx context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	if err := p.outcome(ctx, m); err != nil {
		return nil, err
	}
	return &fspb.EmptyMessage{}, nil
}

// outcome handles a message and returns the status of a failure.
func (p *Processor) outcome(ctx context.Context, m *fspb.Message) error {
	err := p.process(ctx, m)
	if err == nil {
		return nil
	}
	if p.cfg.Failed != nil {
		p.cfg.Failed(m, err)
	}
	return statusError(err)
}

func (p *Processor) process(ctx context.Context, m *fspb.Message) error {
	service := m.GetDestination().GetServiceName()
	handler := p.cfg.Services[service]
	switch {
	case len(m.GetDestination().GetClientId()) > 0:
		return Permanent(errors.New("the message is for a service on a client"))
	case handler == nil:
		return Permanent(fmt.Errorf("there is no service %q here", service))
	}
	select {
	case p.places <- struct{}{}:
	default:
		return errBusy
	}
	defer func() { <-p.places }()
	select {
	case p.running <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.running }()
	return call(ctx, handler, m)
}

// call makes a panic of a handler its error.
func call(ctx context.Context, handler Handler, m *fspb.Message) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return handler(ctx, m)
}

// statusError gives an error the gRPC code that makes every fs-server do the right thing. ABORTED is a failure that passes
// and that blames nobody but the message.
func statusError(err error) error {
	code := codes.Aborted
	switch {
	case is[*permanentError](err):
		code = codes.InvalidArgument
	case is[*unavailableError](err):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}

func is[E error](err error) bool {
	_, is := errors.AsType[E](err)
	return is
}
