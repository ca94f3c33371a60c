package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// http2Client speaks HTTP/2 only, over connections that dial makes.
func (a *testAgent) http2Client(dial func(context.Context) (net.Conn, error)) *http.Client {
	a.t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			secured := tls.Client(conn, a.tls("h2"))
			return secured, secured.HandshakeContext(ctx)
		},
	}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (a *testAgent) loopback(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", a.address)
}

// http2Stream is a session over HTTP/2. Its body is a pipe, so that sending waits until the bytes are on their way.
type http2Stream struct{ testStream }

// reset leaves at once.
func (s *http2Stream) reset() { _ = s.response.Body.Close() }

// openHTTP2 starts a session and returns its answer.
func (a *testAgent) openHTTP2(client *http.Client, header http.Header, raw []byte) (*http2Stream, *http.Response) {
	a.t.Helper()
	body, send := io.Pipe()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://localhost/streaming-message", body)
	if err != nil {
		a.t.Fatal(err)
	}
	request.Header = header
	go func() { _, _ = send.Write(raw) }() // fails when the server refuses first
	response, err := client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = response.Body.Close() })
	return &http2Stream{testStream{t: a.t, body: send, reader: bufio.NewReader(response.Body), response: response}}, response
}

func (a *testAgent) sessionHTTP2(client *http.Client, data *fspb.ContactData) (*http2Stream, *fspb.ContactData) {
	a.t.Helper()
	s, response := a.openHTTP2(client, nil, a.first(data))
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		a.t.Fatalf("status %d over %s", response.StatusCode, response.Proto)
	}
	return s, s.next()
}

func TestSessionOverHTTP2(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, first := agent.sessionHTTP2(agent.http2Client(agent.loopback), &fspb.ContactData{})
	if first.SequencingNonce == 0 {
		t.Errorf("record 0 is %v, want a nonce", first)
	}
	for want := uint64(1); want <= 3; want++ {
		stream.send(framed(agent.wrap(manyMessages(2))))
		if got := stream.next(); got.AckIndex != want {
			t.Fatalf("got %v, want acknowledgement %d", got, want)
		}
	}
	ids := f.insert(t, agent.id, "S", 2)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(&stream.testStream, 2); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// One connection carries few sessions, or the limit on connections would be none on sessions.
func TestSessionsOfOneHTTP2Connection(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	var dialed atomic.Int32
	client := agent.http2Client(func(ctx context.Context) (net.Conn, error) {
		dialed.Add(1)
		return agent.loopback(ctx)
	})
	for range 6 {
		agent.sessionHTTP2(client, &fspb.ContactData{})
	}
	if got := dialed.Load(); got < 2 {
		t.Errorf("six sessions on %d connection, want at most four on one", got)
	}
}

// When the agent ends its body in order, every acknowledgement arrives and the answer ends in order, too.
func TestOrderlyEndOverHTTP2(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.sessionHTTP2(agent.http2Client(agent.loopback), &fspb.ContactData{})
	stream.send(framed(agent.wrap(manyMessages(1))))
	stream.send(framed(agent.wrap(manyMessages(1))))
	if err := stream.body.Close(); err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 2; want++ {
		if got := stream.next(); got.AckIndex != want {
			t.Fatalf("got %v, want acknowledgement %d", got, want)
		}
	}
	if data, err := stream.tryNext(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v; want the end of the answer", data, err)
	}
}

// Refusals reach the agent over HTTP/2 as well (G-07).
func TestRefusalsOverHTTP2(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RequiredLabel = "linux" })
	tests := map[string]struct {
		header http.Header
		raw    func(*testAgent) []byte
		status int
	}{
		"wrong magic":      {nil, func(*testAgent) []byte { return []byte{1, 2, 3, 4, 0} }, http.StatusBadRequest},
		"zero length":      {nil, func(*testAgent) []byte { return append(slices.Clone(magic), 0) }, http.StatusBadRequest},
		"over 20 MiB":      {nil, func(*testAgent) []byte { return binary.AppendUvarint(slices.Clone(magic), 20<<20+1) }, http.StatusBadRequest},
		"unknown encoding": {http.Header{"Content-Encoding": {"gzip"}}, func(*testAgent) []byte { return nil }, http.StatusUnsupportedMediaType},
		"label missing": {nil, func(a *testAgent) []byte {
			a.labels = nil
			return a.first(&fspb.ContactData{})
		}, http.StatusServiceUnavailable},
		"101 messages": {nil, func(a *testAgent) []byte { return a.first(manyMessages(101)) }, http.StatusInternalServerError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			agent := newTestAgent(t, f.address)
			_, response := agent.openHTTP2(agent.http2Client(agent.loopback), test.header, test.raw(agent))
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
		})
	}
}

// The library takes back what belongs to a stream when its handler returns. Pushes that are on their way then must not
// touch it: the process would end (G-01).
func TestClientsThatLeaveDuringPushesOverHTTP2(t *testing.T) {
	f := start(t)
	var agents sync.WaitGroup
	for range 12 {
		agent := newTestAgent(t, f.address)
		client := agent.http2Client(agent.loopback)
		agents.Go(func() {
			for range 3 {
				stream, _ := agent.sessionHTTP2(client, &fspb.ContactData{})
				f.insert(t, agent.id, "S", 3)
				f.server.Wake([]identity.ClientID{agent.id})
				stream.reset()
			}
		})
	}
	agents.Wait()
	waitFor(t, "the sessions to end", func() bool { return f.server.Sessions() == 0 })
	f.stop()
	if panics := gauge(t, f.registry, "farspeak_panics_total"); panics != 0 {
		t.Errorf("%v panics", panics)
	}
}

// An idle session lives over HTTP/2, too: there a deadline that passes ends the stream even when nothing is under way.
func TestIdleSessionLivesOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := start(t, func(c *server.Config) { c.Listener, c.StreamLifetime = l, time.Hour })
		agent := newTestAgent(t, "")
		client := agent.http2Client(func(context.Context) (net.Conn, error) { return l.dial(t), nil })
		stream, _ := agent.sessionHTTP2(client, &fspb.ContactData{})
		for want := uint64(1); want <= 3; want++ {
			time.Sleep(5 * time.Minute)
			stream.send(framed(agent.wrap(&fspb.ContactData{})))
			if got := stream.next(); got.AckIndex != want {
				t.Fatalf("got %v, want acknowledgement %d", got, want)
			}
		}
		stream.reset()
		client.CloseIdleConnections()
		f.stop()
	})
}

// A drain tells sessions over HTTP/2, takes what is in flight, and comes to its end though a client stays (G-08).
func TestDrainOverHTTP2(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.sessionHTTP2(agent.http2Client(agent.loopback), &fspb.ContactData{})
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	if got := stream.next(); !got.DoneSending {
		t.Fatalf("got %v, want done_sending", got)
	}
	stream.send(framed(agent.wrap(manyMessages(2))))
	if got := stream.next(); got.AckIndex != 1 {
		t.Fatalf("got %v, want an acknowledgement while draining", got)
	}
	stream.ended()
	<-stopped
}

func TestPollOverHTTP2(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	client := agent.http2Client(agent.loopback)
	for range 2 {
		response, err := client.Post("https://localhost/message", "", bytes.NewReader(agent.wrap(manyMessages(3))))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("status %d, %v", response.StatusCode, err)
		}
	}
	if got := len(f.services.taken()); got != 6 {
		t.Errorf("%d messages arrived, want 6", got)
	}
}
