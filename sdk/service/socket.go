package service

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// defaultWindow is what an agent of the original can acknowledge at once. With more under way it may stall for as long
	// as the program does not read.
	defaultWindow = 100
	// defaultMaxKept is how many messages may wait for their acknowledgement before Send waits.
	defaultMaxKept = 1000
	// parting is how long the rest of a connection is read when nothing can be written to it any more: an agent that has gone
	// may have left messages.
	parting = 5 * time.Second
	// sourceMessageIDSize is how many random bytes name a message.
	sourceMessageIDSize = 16
)

// SocketConfig describes a Socket.
type SocketConfig struct {
	// Path is the api_proxy_path of the service file.
	Path string
	// Version is shown in resource reports.
	Version string
	// Window is how many messages may be on their way to the server at once; 0 means 100, which suits every agent.
	Window int
	// MaxKept is how many messages are kept for the server, and in the case of a lost connection for the next one,
	// before Send waits; 0 means 1000. 20 MiB of them are enough, too.
	MaxKept int
	// Failed is told why a connection could not be made or has ended. The goroutine that calls it makes the next
	// connection, and is what Close waits for. Nil: nobody is told.
	Failed func(error)
}

// Socket is the connection of a program that the agent has not started. It connects again, for as long as it is open,
// whenever the agent is away, and keeps each message until the server has it.
//
// One goroutine makes the connections and writes; each connection has another one that reads. Close waits for both.
type Socket struct {
	cfg  SocketConfig
	dial func(ctx context.Context, path string) (net.Conn, error)

	kept   *kept
	inbox  *inbox
	closed chan struct{} // closed when run has ended
	stop   context.CancelFunc
}

// OpenSocket checks the configuration and starts to connect. It does not wait for the agent: Failed tells of trouble.
func OpenSocket(cfg SocketConfig) (*Socket, error) {
	path, err := cleanPath(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("SocketConfig.Path: %w", err)
	}
	cfg.Path = path
	return openSocket(cfg, dialAgent), nil
}

func openSocket(cfg SocketConfig, dial func(context.Context, string) (net.Conn, error)) *Socket {
	if cfg.Window <= 0 {
		cfg.Window = defaultWindow
	}
	if cfg.MaxKept <= 0 {
		cfg.MaxKept = defaultMaxKept
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Socket{
		cfg: cfg, dial: dial,
		kept:   newKept(cfg.Window, cfg.MaxKept),
		inbox:  newInbox(),
		closed: make(chan struct{}),
		stop:   stop,
	}
	go s.run(ctx) // Close waits for it
	return s
}

// Receive waits for the next message; see Conn. It never returns io.EOF: an agent that goes away comes back. What has come
// before Close can be received after it.
func (s *Socket) Receive(ctx context.Context) (*fspb.Message, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if m := s.inbox.take(); m != nil {
			return m, nil
		}
		select {
		case <-s.inbox.arrived:
		case <-s.closed:
			if m := s.inbox.take(); m != nil {
				return m, nil
			}
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Send keeps a message and has it sent. It waits while there is no room. Messages without a source message ID are given
// one, in m itself: an m that is sent again is the same message for the server, while it is kept also for the Socket.
//
// The destination has to be on the server side: the agent acknowledges no other messages, so they would be kept for ever.
//
// While Send waits for room, messages are read whether or not they are received. When too many wait for Receive, it
// returns ErrInboxFull: m is not kept, and may be sent again.
func (s *Socket) Send(ctx context.Context, m *fspb.Message) error {
	if err := check(m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if len(m.Destination.ClientId) > 0 {
		return errors.New("send: the destination is on a client")
	}
	if len(m.SourceMessageId) == 0 {
		m.SourceMessageId = make([]byte, sourceMessageIDSize)
		_, _ = rand.Read(m.SourceMessageId) // never fails
	}
	frame, err := channel.AppendFrame(nil, m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	return s.await(ctx, func() <-chan struct{} { return s.kept.tryPut(string(m.SourceMessageId), frame) })
}

// Flush waits until the server has all that was sent. Like Send it may return ErrInboxFull.
func (s *Socket) Flush(ctx context.Context) error {
	var count int
	err := s.await(ctx, func() (changed <-chan struct{}) {
		if count, changed = s.kept.state(); count == 0 {
			return nil
		}
		return changed
	})
	if err != nil && err != ErrClosed {
		return fmt.Errorf("%d messages are not acknowledged: %w", count, err)
	}
	return err
}

// await tries until there is nothing to wait for: acknowledgements have been read since the last try when the channel that
// it returned is closed.
func (s *Socket) await(ctx context.Context, try func() <-chan struct{}) error {
	changed := try()
	if changed == nil {
		return nil
	}
	done := s.kept.await()
	defer done()
	for changed != nil {
		select {
		case <-changed:
		case <-s.inbox.fullness():
			return ErrInboxFull
		case <-s.closed:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
		changed = try()
	}
	return nil
}

// Close ends the connection. Its error says how many messages the server may not have; Flush before it avoids that.
func (s *Socket) Close() error {
	s.stop()
	<-s.closed
	if count, _ := s.kept.state(); count > 0 {
		return fmt.Errorf("%d messages were not acknowledged", count)
	}
	return nil
}

// run makes one connection after the other until ctx ends.
func (s *Socket) run(ctx context.Context) {
	defer close(s.closed)
	wait := newPause()
	for ctx.Err() == nil {
		began := time.Now()
		introduced, err := s.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.cfg.Failed != nil {
			s.cfg.Failed(err)
		}
		if introduced {
			wait = newPause()
			if time.Since(began) >= firstPause { // an agent that hangs up at once is not asked again at once
				continue
			}
		}
		wait.pass(ctx)
	}
}

// connect makes one connection and stays with it to its end. introduced says that the agent has answered.
func (s *Socket) connect(ctx context.Context) (introduced bool, err error) {
	conn, err := s.dial(ctx, s.cfg.Path)
	if err != nil {
		return false, fmt.Errorf("connect to the agent: %w", err)
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	undo := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the error of a close would tell nothing new
	defer undo()

	l := newLink(s, conn)
	var reading sync.WaitGroup
	reading.Go(func() { l.read(ctx) })
	writeErr := l.write()
	close(l.writeEnd)
	l.part(ctx)
	hangUp() // ends the reader
	reading.Wait()
	select {
	case <-l.ready:
		introduced = true
	default:
	}
	if l.readErr != nil { // the agent's end of the story
		return introduced, fmt.Errorf("connection to the agent: %w", l.readErr)
	}
	return introduced, fmt.Errorf("connection to the agent: %w", writeErr)
}
