package backend_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	"github.com/farspeak/farspeak/sdk/backend"
)

func newProcessor(t *testing.T, cfg backend.ProcessorConfig) *backend.Processor {
	t.Helper()
	p, err := backend.NewProcessor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fromClient is a message to a service of the backend.
func fromClient(service string) *fspb.Message {
	return &fspb.Message{
		MessageId:   make([]byte, 32),
		Source:      &fspb.Address{ClientId: []byte("clientAA"), ServiceName: "echo"},
		Destination: &fspb.Address{ServiceName: service},
	}
}

// TestOutcomes: each failure gets the code on which servers of ours and of the original agree.
func TestOutcomes(t *testing.T) {
	broken := errors.New("broken")
	toClient := fromClient("sink")
	toClient.Destination.ClientId = []byte("clientAA")
	for name, c := range map[string]struct {
		m       *fspb.Message
		handler backend.Handler
		want    codes.Code
		text    string
	}{
		"taken":               {fromClient("sink"), returning(nil), codes.OK, ""},
		"comes again":         {fromClient("sink"), returning(broken), codes.Aborted, "broken"},
		"permanent":           {fromClient("sink"), returning(backend.Permanent(broken)), codes.InvalidArgument, "broken"},
		"permanent, wrapped":  {fromClient("sink"), returning(fmt.Errorf("read: %w", backend.Permanent(broken))), codes.InvalidArgument, "read: broken"},
		"unavailable":         {fromClient("sink"), returning(backend.Unavailable(broken)), codes.Unavailable, "broken"},
		"permanent nil":       {fromClient("sink"), returning(backend.Permanent(nil)), codes.OK, ""},
		"unavailable nil":     {fromClient("sink"), returning(backend.Unavailable(nil)), codes.OK, ""},
		"code of another":     {fromClient("sink"), returning(status.Error(codes.Internal, "database")), codes.Aborted, "database"},
		"final code of other": {fromClient("sink"), returning(status.Error(codes.InvalidArgument, "database")), codes.Aborted, "database"},
		"ended":               {fromClient("sink"), returning(context.DeadlineExceeded), codes.Aborted, "deadline"},
		"panic":               {fromClient("sink"), func(context.Context, *fspb.Message) error { panic("secret") }, codes.Aborted, "panicked"},
		"another service":     {fromClient("other"), returning(nil), codes.InvalidArgument, `"other"`},
		"no service":          {&fspb.Message{}, returning(nil), codes.InvalidArgument, "no service"},
		"for a client":        {toClient, returning(nil), codes.InvalidArgument, "on a client"},
	} {
		var failed error
		p := newProcessor(t, backend.ProcessorConfig{
			Services: map[string]backend.Handler{"sink": c.handler},
			Failed:   func(_ *fspb.Message, err error) { failed = err },
		})
		answer, err := p.Process(t.Context(), c.m)
		if status.Code(err) != c.want || !strings.Contains(status.Convert(err).Message(), c.text) || (answer != nil) != (err == nil) {
			t.Errorf("%s: %v, %v; want %v and %q", name, answer, err, c.want, c.text)
		}
		if (failed != nil) != (err != nil) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: told of %v, answered %v", name, failed, err)
		}
		if panicked, is := errors.AsType[*backend.PanicError](failed); name == "panic" && (!is || !strings.Contains(panicked.String(), "secret")) {
			t.Errorf("%s: told of %v, want the panic with its stack", name, failed)
		}
	}
}

func returning(err error) backend.Handler {
	return func(context.Context, *fspb.Message) error { return err }
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const parallelism, waiting, calls = 3, 5, 20
		var running, most atomic.Int32
		p := newProcessor(t, backend.ProcessorConfig{
			Services: map[string]backend.Handler{"sink": func(context.Context, *fspb.Message) error {
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(time.Second) // of the bubble
				running.Add(-1)
				return nil
			}},
			Parallelism: parallelism, Waiting: waiting,
		})
		var results [codes.Unauthenticated + 1]atomic.Int32
		var calling sync.WaitGroup
		for range calls {
			calling.Go(func() {
				_, err := p.Process(t.Context(), fromClient("sink"))
				results[status.Code(err)].Add(1)
			})
		}
		calling.Wait()
		if most.Load() != parallelism || results[codes.OK].Load() != parallelism+waiting || results[codes.Aborted].Load() != calls-parallelism-waiting {
			t.Errorf("%d at once, %d done, %d sent back; want %d, %d, %d", most.Load(), results[codes.OK].Load(), results[codes.Aborted].Load(),
				parallelism, parallelism+waiting, calls-parallelism-waiting)
		}
		if _, err := p.Process(t.Context(), fromClient("sink")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestWaitingEndsWithItsCaller: who gives up leaves the line.
func TestWaitingEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessor(t, backend.ProcessorConfig{
			Services: map[string]backend.Handler{"sink": func(ctx context.Context, _ *fspb.Message) error {
				<-ctx.Done()
				return ctx.Err()
			}},
			Parallelism: 1, Waiting: 1,
		})
		ctx, cancel := context.WithCancel(t.Context())
		var calling sync.WaitGroup
		calling.Go(func() { _, _ = p.Process(ctx, fromClient("sink")) })
		synctest.Wait()
		soon, cancelSoon := context.WithTimeout(t.Context(), time.Second)
		defer cancelSoon()
		if _, err := p.Process(soon, fromClient("sink")); status.Code(err) != codes.Aborted {
			t.Errorf("error %v of one that waited in vain", err)
		}
		cancel()
		calling.Wait()
	})
}

// serve starts a Processor and returns a connection to it, and what ends it.
func serve(t *testing.T, cfg backend.ProcessorConfig, creds credentials.TransportCredentials) (*grpc.ClientConn, func() error) {
	t.Helper()
	listener := listen(t, "tcp", "127.0.0.1:0")
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	p := newProcessor(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	var result error
	serving.Go(func() { result = p.Serve(ctx, listener) })
	stop := func() error {
		cancel()
		serving.Wait()
		return result
	}
	t.Cleanup(func() {
		_ = stop()
		conn.Close()
	})
	return conn, stop
}

func TestServeFinishesWhatRuns(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	conn, stop := serve(t, backend.ProcessorConfig{Services: map[string]backend.Handler{
		"sink": func(context.Context, *fspb.Message) error {
			close(started)
			<-finish
			return nil
		},
	}}, insecure.NewCredentials())
	result := make(chan error, 1)
	var calling sync.WaitGroup
	calling.Go(func() {
		_, err := grpcservicepb.NewProcessorClient(conn).Process(t.Context(), fromClient("sink"))
		result <- err
	})
	<-started
	stopped := make(chan error, 1)
	calling.Go(func() { stopped <- stop() })
	close(finish)
	if err := <-result; err != nil {
		t.Errorf("the call that ran: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	calling.Wait()
}

func TestServeOverTLS(t *testing.T) {
	files := newCertificate(t)
	serverTLS, err := files.LoadServerTLS() // fs-server presents no certificate
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := backend.TLSFiles{CA: files.Certificate}.LoadTLS()
	if err != nil {
		t.Fatal(err)
	}
	conn, stop := serve(t, backend.ProcessorConfig{
		Services: map[string]backend.Handler{"sink": returning(nil)}, TLS: serverTLS,
	}, credentials.NewTLS(clientTLS))
	if _, err := grpcservicepb.NewProcessorClient(conn).Process(t.Context(), fromClient("sink")); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestLargeMessages(t *testing.T) {
	conn, _ := serve(t, backend.ProcessorConfig{Services: map[string]backend.Handler{"sink": returning(nil)}}, insecure.NewCredentials())
	m := fromClient("sink")
	m.SourceMessageId = make([]byte, 15<<20)
	if _, err := grpcservicepb.NewProcessorClient(conn).Process(t.Context(), m); err != nil {
		t.Errorf("15 MiB: %v", err)
	}
	m.SourceMessageId = make([]byte, 17<<20)
	if _, err := grpcservicepb.NewProcessorClient(conn).Process(t.Context(), m); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("17 MiB: %v", err)
	}
}

func TestServeThatNeverBegan(t *testing.T) {
	p := newProcessor(t, backend.ProcessorConfig{Services: map[string]backend.Handler{"sink": returning(nil)}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Serve(ctx, listen(t, "tcp", "127.0.0.1:0")); err != nil {
		t.Errorf("context that had ended: %v", err)
	}
	listener := listen(t, "tcp", "127.0.0.1:0")
	listener.Close()
	if err := p.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
}

func TestBadProcessorConfig(t *testing.T) {
	for name, services := range map[string]map[string]backend.Handler{
		"none":       nil,
		"no name":    {"": returning(nil)},
		"no handler": {"sink": nil},
	} {
		if _, err := backend.NewProcessor(backend.ProcessorConfig{Services: services}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
