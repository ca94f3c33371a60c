package backend_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/sdk/backend"
)

// admin is an fs-admin that does what a test wants.
type admin struct {
	serverpb.UnimplementedAdminServer

	insert func(ctx context.Context, m *fspb.Message, try int) error

	mu     sync.Mutex
	tries  []*fspb.Message
	tokens []string
	pings  int
}

func (a *admin) InsertMessage(ctx context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.mu.Lock()
	a.tries = append(a.tries, m)
	a.tokens = append(a.tokens, strings.Join(md.Get("authorization"), ","))
	try := len(a.tries)
	a.mu.Unlock()
	if a.insert != nil {
		if err := a.insert(ctx, m, try); err != nil {
			return nil, err
		}
	}
	return &fspb.EmptyMessage{}, nil
}

func (a *admin) KeepAlive(context.Context, *fspb.EmptyMessage) (*fspb.EmptyMessage, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pings++
	return &fspb.EmptyMessage{}, nil
}

func (a *admin) seen() []*fspb.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tries
}

// serve starts a and returns its address.
func (a *admin) serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener := listen(t, "tcp", "127.0.0.1:0")
	a.serveOn(t, listener, options...)
	return listener.Addr().String()
}

func (a *admin) serveOn(t *testing.T, listener net.Listener, options ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(options...)
	serverpb.RegisterAdminServer(server, a)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func newSubmitter(t *testing.T, cfg backend.SubmitterConfig) *backend.Submitter {
	t.Helper()
	s, err := backend.NewSubmitter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newMessage(t *testing.T) *fspb.Message {
	t.Helper()
	m, err := backend.NewMessage([]byte("clientAA"), "echo", "Text", wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRetriesAreOneMessage: all tries have the ID of the first, whoever chose it, and the submission after a failure too.
func TestRetriesAreOneMessage(t *testing.T) {
	own := bytes.Repeat([]byte{7}, 32)
	for name, id := range map[string][]byte{"own ID": own, "no ID": nil} {
		t.Run(name, func(t *testing.T) {
			a := &admin{insert: func(_ context.Context, _ *fspb.Message, try int) error {
				if try%3 != 0 {
					return status.Error(codes.Unavailable, "starting")
				}
				return nil
			}}
			s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
			m := newMessage(t)
			m.MessageId = id
			for range 2 {
				if err := s.Submit(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			tries := a.seen()
			if len(tries) != 6 {
				t.Errorf("%d tries, want 6", len(tries))
			}
			for _, try := range tries {
				if len(try.MessageId) != 32 || !bytes.Equal(try.MessageId, m.MessageId) || try.Source.GetServiceName() != "inventory" {
					t.Errorf("tried %v, want all with one ID and the source", try)
				}
			}
			if id != nil && !bytes.Equal(m.MessageId, own) {
				t.Error("the ID was replaced")
			}
		})
	}
}

func TestSourceIsKept(t *testing.T) {
	a := &admin{}
	s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
	m := newMessage(t)
	m.Source = &fspb.Address{ServiceName: "other"}
	if err := s.Submit(t.Context(), m); err != nil || a.seen()[0].Source.ServiceName != "other" {
		t.Errorf("submitted %v, %v", a.seen(), err)
	}
}

func TestCodesThatAreTriedAgain(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		want := 2
		switch code {
		case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
			codes.OutOfRange, codes.Unimplemented, codes.DataLoss, codes.Unauthenticated:
			want = 1
		}
		a := &admin{insert: func(_ context.Context, _ *fspb.Message, try int) error {
			if try == 1 {
				return status.Error(code, "no")
			}
			return nil
		}}
		s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
		err := s.Submit(t.Context(), newMessage(t))
		if got := len(a.seen()); got != want || (err == nil) != (want == 2) {
			t.Errorf("%v: %d tries, error %v; want %d tries", code, got, err, want)
		}
		if want == 1 && status.Code(err) != code {
			t.Errorf("%v: the code of %v is lost", code, err)
		}
	}
}

func TestDeadlines(t *testing.T) {
	hang := func(ctx context.Context, _ *fspb.Message, try int) error {
		if try < 3 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	t.Run("of a try", func(t *testing.T) {
		a := &admin{insert: hang}
		s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory", TryTimeout: 50 * time.Millisecond})
		if err := s.Submit(t.Context(), newMessage(t)); err != nil || len(a.seen()) != 3 {
			t.Errorf("%d tries, %v; want success with the third", len(a.seen()), err)
		}
	})
	t.Run("of all", func(t *testing.T) {
		a := &admin{insert: func(context.Context, *fspb.Message, int) error { return status.Error(codes.Unavailable, "starting") }}
		s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory", Timeout: 300 * time.Millisecond})
		err := s.Submit(t.Context(), newMessage(t))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "starting") {
			t.Errorf("error %v, want the deadline and the last refusal", err)
		}
	})
	t.Run("of the caller", func(t *testing.T) {
		a := &admin{insert: hang}
		s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := s.Submit(ctx, newMessage(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		listener := listen(t, "tcp", "127.0.0.1:0")
		listener.Close()
		s := newSubmitter(t, backend.SubmitterConfig{Address: listener.Addr().String(), Source: "inventory", Timeout: 300 * time.Millisecond})
		if err := s.Submit(t.Context(), newMessage(t)); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("error %v, want the reason", err)
		}
	})
}

// refusal says when to come again.
func refusal(t *testing.T, after time.Duration) error {
	t.Helper()
	s, err := status.New(codes.ResourceExhausted, "queue is full").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func TestHintIsObeyed(t *testing.T) {
	const pause = 700 * time.Millisecond // longer than the own first pause
	var refused time.Time
	var waited time.Duration
	a := &admin{insert: func(_ context.Context, _ *fspb.Message, try int) error {
		if try == 1 {
			refused = time.Now()
			return refusal(t, pause)
		}
		waited = time.Since(refused)
		return nil
	}}
	s := newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
	if err := s.Submit(t.Context(), newMessage(t)); err != nil || waited < pause {
		t.Errorf("tried again after %v, %v; want %v at least", waited, err, pause)
	}

	begin := time.Now()
	a = &admin{insert: func(context.Context, *fspb.Message, int) error { return refusal(t, time.Hour) }}
	s = newSubmitter(t, backend.SubmitterConfig{Address: a.serve(t), Source: "inventory"})
	if err := s.Submit(t.Context(), newMessage(t)); status.Code(err) != codes.ResourceExhausted || time.Since(begin) > 20*time.Second {
		t.Errorf("error %v after %v, want the refusal without waiting in vain", err, time.Since(begin))
	}
}

func TestRefusedBeforeTheFirstTry(t *testing.T) {
	a := &admin{}
	address := a.serve(t)
	s, anonymous := newSubmitter(t, backend.SubmitterConfig{Address: address, Source: "x"}), newSubmitter(t, backend.SubmitterConfig{Address: address})
	shortID, large, nowhere := newMessage(t), newMessage(t), newMessage(t)
	shortID.MessageId = []byte("short")
	large.SourceMessageId = make([]byte, backend.MaxMessage)
	nowhere.Destination.ServiceName = ""
	for name, c := range map[string]struct {
		s    *backend.Submitter
		m    *fspb.Message
		want string
	}{
		"no message":     {s, nil, "no destination"},
		"no destination": {s, nowhere, "no destination"},
		"no source":      {anonymous, newMessage(t), "no source"},
		"odd ID":         {s, shortID, "5 bytes"},
		"too large":      {s, large, "at most 2097152"},
	} {
		if err := c.s.Submit(t.Context(), c.m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if len(a.seen()) != 0 {
		t.Errorf("%d tries", len(a.seen()))
	}
}

func TestSecurity(t *testing.T) {
	files := newCertificate(t)
	serverTLS, err := backend.TLSFiles{CA: files.Certificate, Certificate: files.Certificate, Key: files.Key}.LoadServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	a := &admin{}
	address := a.serve(t, grpc.Creds(credentials.NewTLS(serverTLS)))
	with, err := backend.TLSFiles{CA: files.Certificate, Certificate: files.Certificate, Key: files.Key}.LoadTLS()
	if err != nil {
		t.Fatal(err)
	}
	without, err := backend.TLSFiles{CA: files.Certificate}.LoadTLS()
	if err != nil {
		t.Fatal(err)
	}
	s := newSubmitter(t, backend.SubmitterConfig{Address: address, Source: "x", TLS: with, Token: "secret"})
	if err := s.Submit(t.Context(), newMessage(t)); err != nil || a.tokens[0] != "Bearer secret" {
		t.Errorf("with certificate and token: %v, token %q", err, a.tokens)
	}
	s = newSubmitter(t, backend.SubmitterConfig{Address: address, Source: "x", TLS: without, Timeout: 500 * time.Millisecond})
	if err := s.Submit(t.Context(), newMessage(t)); err == nil || len(a.seen()) != 1 {
		t.Errorf("without a certificate: %v and %d calls", err, len(a.seen()))
	}
}

func TestTokenStaysLocalOrEncrypted(t *testing.T) {
	for address, allowed := range map[string]bool{
		"localhost:1": true, "127.0.0.1:1": true, "[::1]:1": true, "unix:/run/admin.sock": true,
		"admin.example:1": false, "192.0.2.1:1": false, "dns:///admin.example:1": false, ":1": false,
	} {
		s, err := backend.NewSubmitter(backend.SubmitterConfig{Address: address, Token: "secret"})
		if (err == nil) != allowed {
			t.Errorf("%s: error %v", address, err)
		}
		if err == nil {
			s.Close()
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the token is in %q", err)
		}
	}
	if _, err := backend.NewSubmitter(backend.SubmitterConfig{}); err == nil {
		t.Error("no address was taken")
	}
}

func TestUnixSocketAndPing(t *testing.T) {
	a := &admin{}
	path := filepath.Join(t.TempDir(), "s")
	a.serveOn(t, listen(t, "unix", path))
	s := newSubmitter(t, backend.SubmitterConfig{Address: "unix:" + path, Source: "x", Token: "secret"})
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { s.KeepAlive(ctx, func(err error) { t.Error(err) }) })
	if err := s.Submit(t.Context(), newMessage(t)); err != nil {
		t.Error(err)
	}
	cancel()
	keeping.Wait()
	s.Close()
	var failed error
	ctx, cancel = context.WithCancel(t.Context())
	s.KeepAlive(ctx, func(err error) { failed = err; cancel() })
	if failed == nil {
		t.Error("nobody was told of a ping without a connection")
	}
}
