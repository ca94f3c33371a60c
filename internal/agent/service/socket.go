package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/golang/glog"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

// acceptRetry is how long the service waits when the system gives it no connection, for instance for want of descriptors.
const acceptRetry = time.Second

// socket talks to a process that somebody else runs and that connects to a local socket: one at a time, while others wait to
// be accepted. One goroutine, serve, takes one connection after the other.
type socket struct {
	name     string
	host     Host
	settings socketSettings
	timing   timing
	listener net.Listener
	counter  counter
	state    *stateBoard
	drops    *dropLog

	stop context.CancelFunc
	done chan struct{} // closed when serve has ended
}

// socketSettings is what a Socket's configuration says.
type socketSettings struct {
	path  string
	usage bool // report the resource usage of the process
	sampling
}

// NewSocket makes a service that a process can connect to. It fails when the socket cannot be made, or would not be safe
// from other users.
func NewSocket(spec Spec) (Service, error) { return newSocket(spec, protocolTiming) }

func newSocket(spec Spec, times timing) (Service, error) {
	config := &socketpb.Config{}
	if err := configOf(spec, config); err != nil {
		return nil, err
	}
	if config.ApiProxyPath == "" {
		return nil, errors.New("config: api_proxy_path is empty")
	}
	listener, err := listen(config.ApiProxyPath)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", config.ApiProxyPath, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &socket{
		name: spec.Name,
		host: spec.Host,
		settings: socketSettings{
			path:  config.ApiProxyPath,
			usage: !config.DisableResourceMonitoring,
			sampling: readSampling(config.ResourceMonitoringSampleSize,
				period(nil, config.ResourceMonitoringSamplePeriodSeconds, 0), true),
		},
		timing:   times,
		listener: listener,
		counter:  make(counter),
		state:    &stateBoard{},
		drops:    &dropLog{service: spec.Name},
		stop:     cancel,
		done:     make(chan struct{}),
	}
	go s.serve(ctx) // Stop waits for it
	return s, nil
}

// Process returns when a process has the message in its socket. It waits for one as long as it takes.
func (s *socket) Process(ctx context.Context, m *fspb.Message) error {
	return s.counter.deliver(ctx, m)
}

// Stop ends the connection, if there is one. The file of the socket stays.
func (s *socket) Stop(ctx context.Context) {
	s.stop()
	select {
	case <-s.done:
	case <-ctx.Done():
		glog.Errorf("service %s: the connection does not end", s.name)
	}
}

// State implements Stater.
func (s *socket) State() State { return s.state.read() }

// serve takes one connection after the other until ctx ends.
func (s *socket) serve(ctx context.Context) {
	defer close(s.done)
	closed := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer closed()
	var left *handover
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			left = s.talk(ctx, conn, left)
		case ctx.Err() != nil:
			return
		default:
			glog.Errorf("service %s: no connection can be accepted: %v", s.name, err)
			s.state.fail(err)
			pause(ctx.Done(), acceptRetry)
		}
	}
}

// talk sees one connection through to its end. It returns the message that the process did not get any more.
func (s *socket) talk(ctx context.Context, conn net.Conn, first *handover) (left *handover) {
	s.state.starting()
	glog.V(1).Infof("service %s: a process has connected", s.name)
	left, err := newConnection(s, conn).run(ctx, first)
	s.state.ended(err, ctx.Err() != nil)
	if err != nil && ctx.Err() == nil {
		glog.Warningf("service %s: the connection ended: %v", s.name, err)
	}
	return left
}
