//go:build unix

package service_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	agent "github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	"github.com/farspeak/farspeak/sdk/service"
)

// patience is how long a test waits for what has to come.
const patience = time.Minute

// host is an agent around its Socket service. It stands for the server, too, which knows repeated messages.
type host struct {
	mu      sync.Mutex
	texts   []string // of the messages, each once
	known   map[string]bool
	holding bool     // the test says when the server has messages
	held    []func() // what to call then
	changed chan struct{}
}

func newHost() *host { return &host{known: map[string]bool{}, changed: make(chan struct{})} }

func (*host) ClientID() identity.ClientID { return identity.ClientID{1} }

func (*host) Report(context.Context, string, proto.Message) error { return nil }

func (h *host) Send(_ context.Context, m *fspb.Message, accepted func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id := string(m.SourceMessageId); !h.known[id] {
		h.known[id] = true
		h.texts = append(h.texts, textOf(m))
		close(h.changed)
		h.changed = make(chan struct{})
	}
	if h.holding {
		h.held = append(h.held, accepted)
	} else {
		accepted()
	}
	return nil
}

// release makes the server have all messages, and from now on at once.
func (h *host) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, accepted := range h.held {
		accepted()
	}
	h.held, h.holding = nil, false
}

// await waits for so many messages, and returns their texts.
func (h *host) await(t *testing.T, count int) []string {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		h.mu.Lock()
		texts, changed := h.texts, h.changed
		h.mu.Unlock()
		if len(texts) >= count {
			return texts
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%d messages came, want %d", len(texts), count)
		}
	}
}

// expectNumbered waits for texts with the numbers from 0, in order.
func (h *host) expectNumbered(t *testing.T, count int) {
	t.Helper()
	texts := h.await(t, count)
	for i, text := range texts {
		if number, _, _ := strings.Cut(text, " "); number != fmt.Sprint(i) || i >= count {
			t.Fatalf("message %d is %.20q", i, text)
		}
	}
}

// start starts the agent's end. What it returns stops it.
func (h *host) start(t *testing.T, path string) (agent.Service, func()) {
	t.Helper()
	config, err := anypb.New(&socketpb.Config{ApiProxyPath: path, DisableResourceMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := agent.NewSocket(agent.Spec{Name: "test", Config: config, Host: h})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		svc.Stop(ctx)
	})
	t.Cleanup(stop)
	return svc, stop
}

func openSocket(t *testing.T, path string, cfg service.SocketConfig) *service.Socket {
	t.Helper()
	cfg.Path = path
	s, err := service.OpenSocket(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func agentPath(t *testing.T) string { return filepath.Join(shortTempDir(t), "agent", "s") }

func flush(t *testing.T, s *service.Socket) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// serve has a program answer every message, until the test ends.
func serve(t *testing.T, s *service.Socket) {
	t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := service.Serve(context.Background(), s, answerText); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		_ = s.Close()
		serving.Wait()
	})
}

// deliver has the agent deliver numbered messages, each filled up to a size.
func deliver(t *testing.T, svc agent.Service, from, to, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fill := strings.Repeat("x", size)
	for i := from; i < to; i++ {
		if err := svc.Process(ctx, request(t, fmt.Sprint(i, " ", fill))); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

func TestAgentAndSocket(t *testing.T) {
	const count = 5000
	h, path := newHost(), agentPath(t)
	s := openSocket(t, path, service.SocketConfig{}) // waits for the agent
	svc, _ := h.start(t, path)
	serve(t, s)
	deliver(t, svc, 0, count, 100)
	h.expectNumbered(t, count)
	deliver(t, svc, count, count+1, service.MaxMessage-200)
	h.expectNumbered(t, count+1)
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAgentWithLateAcknowledgements: a program that waits for the server in Send does not keep the agent from telling it
// that the server has its messages.
func TestAgentWithLateAcknowledgements(t *testing.T) {
	const count = 500 // more than the socket holds by far, of 4 KiB
	h, path := newHost(), agentPath(t)
	h.holding = true
	svc, _ := h.start(t, path)
	s := openSocket(t, path, service.SocketConfig{MaxKept: 50})
	serve(t, s)
	deliver(t, svc, 0, count, 4<<10)
	h.release()
	h.expectNumbered(t, count)
	flush(t, s)
}

// TestAgentRestarts: nothing is lost in either direction when the agent comes and goes.
func TestAgentRestarts(t *testing.T) {
	const rounds, perRound, window = 3, 2000, 100
	h, path := newHost(), agentPath(t)
	h.holding = true
	s := openSocket(t, path, service.SocketConfig{Window: window})
	received := make(chan string, rounds*perRound)
	ctx, cancel := context.WithCancel(context.Background())
	var program sync.WaitGroup
	defer program.Wait()
	defer cancel()
	program.Go(func() {
		for {
			m, err := s.Receive(ctx)
			if err != nil {
				return
			}
			received <- textOf(m)
		}
	})
	program.Go(func() {
		for i := range rounds * perRound {
			if err := s.Send(ctx, toBackend(t, fmt.Sprint(i))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for round := range rounds {
		svc, stop := h.start(t, path)
		deliver(t, svc, round*perRound, (round+1)*perRound, 100)
		h.await(t, window) // the program has sent what it may without acknowledgements
		stop()
	}
	h.release()
	h.start(t, path)
	h.expectNumbered(t, rounds*perRound)
	flush(t, s)
	for i := range rounds * perRound {
		if number, _, _ := strings.Cut(<-received, " "); number != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, number)
		}
	}
}

// TestAgentLeavesMessages: what an agent that has gone had written counts as delivered (G-13), and a program gets all of it
// though it is not receiving when the next connection is made.
func TestAgentLeavesMessages(t *testing.T) {
	const count = service.InboxSize + 10 // more than is read unasked, less than the socket holds besides
	h, path := newHost(), agentPath(t)
	s := openSocket(t, path, service.SocketConfig{})
	svc, stop := h.start(t, path)
	deliver(t, svc, 0, count, 10)
	stop()
	h.start(t, path)
	mustSend(t, s, "0")
	h.expectNumbered(t, 1)
	for i := range count {
		m, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if number, _, _ := strings.Cut(textOf(m), " "); number != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, number)
		}
	}
}
