package services

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
)

const (
	// maxStreamed is the largest message for a stream, in bytes. A larger one is a call of its own: a single failure when it
	// is too large for the backend, and no burden for the messages behind it.
	maxStreamed = 64 << 10
	// maxOutcomes bounds what a backend may write at once.
	maxOutcomes = 256 << 10
	// refusalFor is how long a connection whose backend offers no streams is not asked for them again. What is behind a
	// connection does not change as a rule.
	refusalFor = 5 * time.Minute
)

// streams keeps a stream to a backend open, if the backend has them. The first message opens it.
type streams struct {
	client  backendpb.ReceiverClient
	ctx     context.Context // of all streams
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu           sync.Mutex
	current      *stream   // takes deliveries; nil when the next one has to open a stream
	refusedUntil time.Time // streams, by the connection refusedBy
	refusedBy    string
}

func newStreams(conn *grpc.ClientConn) *streams {
	s := &streams{client: backendpb.NewReceiverClient(conn)}
	s.ctx, s.cancel = context.WithCancel(context.Background()) // ended by close
	return s
}

// deliver hands a message to the backend and returns the outcome, or errNotOffered.
func (s *streams) deliver(ctx context.Context, body []byte) error {
	for {
		st := s.open()
		if st == nil {
			return errNotOffered
		}
		if d, ok := st.queue(ctx, body); ok {
			return st.wait(ctx, d)
		}
		s.leave(st)
	}
}

// offered says whether a stream is open, or worth a try.
func (s *streams) offered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil || s.askable()
}

// askable says whether to open a stream. The caller holds mu.
func (s *streams) askable() bool { return s.refusedUntil.IsZero() || time.Now().After(s.refusedUntil) }

// called is told over which connection a call went. A new one may be to a newer backend.
func (s *streams) called(by *peer.Peer) {
	connection := connectionOf(by)
	s.mu.Lock()
	defer s.mu.Unlock()
	if connection != "" && connection != s.refusedBy {
		s.refusedUntil = time.Time{}
	}
}

// connectionOf names a connection by what no other one has at the same time: our end of it.
func connectionOf(p *peer.Peer) string {
	if p.LocalAddr == nil {
		return "" // there was none
	}
	return p.LocalAddr.String()
}

// open returns the stream for the next delivery, nil when there is none to be had.
func (s *streams) open() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return s.current
	}
	if !s.askable() {
		return nil
	}
	ctx, cancel := context.WithCancel(s.ctx)
	st := newStream(cancel)
	s.current = st
	s.running.Go(func() { s.run(ctx, st) })
	return st
}

// run sees a stream through. Nobody is answered before the next delivery is sure to find another way.
func (s *streams) run(ctx context.Context, st *stream) {
	var by peer.Peer
	err := st.run(ctx, s.client, grpc.MaxCallRecvMsgSize(maxOutcomes), grpc.Peer(&by))
	refused := st.end(err)
	s.leave(st)
	if !refused {
		st.abandon(broken(err))
		return
	}
	s.refuse(&by)
	st.abandon(errNotOffered)
}

// leave makes the next delivery open another stream than this one.
func (s *streams) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == st {
		s.current = nil
	}
}

// refuse notes that the backend offers no streams.
func (s *streams) refuse(by *peer.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusedUntil, s.refusedBy = time.Now().Add(refusalFor), connectionOf(by)
}

// close ends all streams. No delivery may be under way.
func (s *streams) close() {
	s.cancel()
	s.running.Wait()
}
