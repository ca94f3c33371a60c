package agent_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/wire"
)

// httpsProxy is a forward proxy that is spoken to over TLS.
type httpsProxy struct {
	http *httptest.Server

	mu     sync.Mutex
	tunnel []tls.ConnectionState // of each tunnel's connection to the proxy
}

func newHTTPSProxy(t *testing.T) *httpsProxy {
	t.Helper()
	p := &httpsProxy{}
	p.http = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	certificate, _ := newServerCertificate(t)
	p.http.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	p.http.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.http.StartTLS()
	t.Cleanup(func() {
		p.http.CloseClientConnections()
		p.http.Close()
	})
	return p
}

// serve makes a tunnel, until one of its ends closes.
func (p *httpsProxy) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	p.mu.Lock()
	p.tunnel = append(p.tunnel, *r.TLS)
	p.mu.Unlock()
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}()
	_, _ = io.Copy(to, buffered)
	_ = to.Close()
	<-back
}

// What servers say of their tickets does not hold for a proxy, nor for what is behind it, where the library shakes hands.
func TestSharedTicketsBehindAnHTTPSProxy(t *testing.T) {
	t.Parallel()
	s, p := newFakeServer(t), newHTTPSProxy(t)
	s.header.Set(wire.FeaturesHeader, wire.FeatureSharedTickets)
	start(t, s, func(c *agent.Config) {
		c.Link.Roots.AddCert(p.http.Certificate())
		c.Link.Proxy = &url.URL{Scheme: "https", Host: p.http.Listener.Addr().String()}
	})
	const sessions = 3
	for i := range sessions {
		n := s.open()
		if curve := n.attempt.curve; curve != tls.X25519MLKEM768 {
			t.Errorf("session %d: keys by %v", i, curve)
		}
		n.finish()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tunnel) < sessions {
		t.Errorf("%d tunnels for %d sessions", len(p.tunnel), sessions)
	}
	for i, state := range p.tunnel {
		if state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("tunnel %d: keys by %v", i, state.CurveID)
		}
	}
}
