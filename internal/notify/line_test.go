package notify_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/farspeak/farspeak/internal/notify"
)

// scripted is a server that answers each request with the same bytes, on as many connections as come.
func scripted(t *testing.T, reply string) (address string, connections *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serving.Go(func() { answer(conn, reply) })
		}
	})
	t.Cleanup(func() { // the connections end with the client
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String(), connections
}

// answer replies to requests until the client leaves.
func answer(conn net.Conn, reply string) {
	defer conn.Close()
	requests := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		if _, err := conn.Write([]byte(reply)); err != nil {
			return
		}
	}
}

// What a server replies decides whether the line is kept, and whether the hint counts as sent.
func TestClientReadsReplies(t *testing.T) {
	const done = "HTTP/1.1 204 No Content\r\n\r\n"
	sized := func(n int) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
	for name, tc := range map[string]struct {
		reply       string
		sent        float64 // of three requests, as far as they are made
		connections int32
	}{
		"plain":                {done, 3, 1},
		"with a body":          {sized(100), 3, 1},
		"with a long body":     {sized(100_000), 3, 3},
		"that ends the line":   {"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 3, 3},
		"of the old kind":      {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 3, 3},
		"after an interim one": {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + done, 3, 1},
		"twice":                {done + done, 3, 3},
		"interim ones only":    {strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20), 0, 1},
		"with a long header":   {"HTTP/1.1 204 No Content\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 0, 1},
		"that is none":         {"220 mail.example.com ESMTP\r\n\r\n", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			address, connections := scripted(t, tc.reply)
			client, registry := newClient(t, notify.Config{})
			for i := range 3 {
				client.Notify(address, clientID(i)) // dropped after a failure
				client.Settled()
			}
			if got := metric(t, registry, "farspeak_notifications_sent_total"); got != tc.sent {
				t.Errorf("%v requests sent, want %v", got, tc.sent)
			}
			if got := connections.Load(); got != tc.connections {
				t.Errorf("%d connections, want %d", got, tc.connections)
			}
			if err := client.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A proxy that gave an idle line up has said so before the request came, which is made again.
func TestClientAsksAgainAfterAStaleReply(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 2 {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	t.Cleanup(server.Close)
	client, registry := newClient(t, notify.Config{})
	for i := range 2 {
		client.Notify(server.Listener.Addr().String(), clientID(i))
		client.Settled()
	}
	if got := metric(t, registry, "farspeak_notifications_sent_total"); got != 2 || requests.Load() != 3 {
		t.Errorf("%v hints were sent by %d requests, want 2 by 3", got, requests.Load())
	}
	if err := client.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A line that nobody uses is closed, and the next hint opens one.
func TestClientClosesIdleLines(t *testing.T) {
	sink := newRecorder()
	states := make(chan http.ConnState, 100)
	server := httptest.NewUnstartedServer(notify.NewHandler(sink, notify.Config{}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew || state == http.StateClosed {
			states <- state
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	client, _ := newClient(t, notify.Config{})
	for range 2 {
		client.Notify(address, clientID(1))
		if got := receive(t, states); got != http.StateNew {
			t.Fatalf("connection %v, want a new one", got)
		}
		client.Rest(address)
		if got := receive(t, states); got != http.StateClosed {
			t.Fatalf("connection %v, want it closed", got)
		}
	}
	sink.wait(t, 2)
	client.Notify(address, clientID(1))
	receive(t, states)
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, states); got != http.StateClosed {
		t.Errorf("connection %v after Close, want it closed", got)
	}
}
