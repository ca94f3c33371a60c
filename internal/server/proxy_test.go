package server_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http/httputil"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/limit"
	"github.com/farspeak/farspeak/internal/proxyproto"
	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// behindBalancer makes the listener that fs-server makes: limited, and with PROXY headers.
func behindBalancer(t testing.TB) func(*server.Config) {
	t.Helper()
	return func(c *server.Config) {
		limited, err := limit.NewListener(c.Listener, limit.Config{Max: 100, MaxHalfOpen: 10})
		if err != nil {
			t.Fatal(err)
		}
		c.Listener = proxyproto.NewListener(limited, proxyproto.Config{
			HeaderTimeout: ioTimeout, OnError: func(string) {}, OnAbsent: func() {},
		})
	}
}

// Behind a balancer the client's own address counts, and its session waits and wakes up like any other.
func TestSessionBehindBalancer(t *testing.T) {
	f := start(t, behindBalancer(t))
	agent := newTestAgent(t, f.address)
	raw, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := io.WriteString(raw, "PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n"); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, agent.tls("http/1.1"))
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /streaming-message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	stream := &testStream{t: t, raw: conn, body: httputil.NewChunkedWriter(conn), reader: bufio.NewReader(conn)}
	stream.send(agent.first(&fspb.ContactData{}))
	stream.status()
	stream.next()
	for want := uint64(1); want <= 3; want++ {
		stream.send(framed(agent.wrap(manyMessages(2))))
		if got := stream.next().AckIndex; got != want {
			t.Fatalf("acknowledgement %d, want %d", got, want)
		}
	}
	known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
	if err != nil || known[agent.id].LastContactAddress != "192.0.2.7:1234" {
		t.Errorf("the stored client is %+v, %v", known[agent.id], err)
	}
}
