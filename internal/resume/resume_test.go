package resume_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/resume"
	"github.com/farspeak/farspeak/internal/wire"
)

// server makes handshakes as the test wants them.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	hellos int           // handshakes that began
	curves []tls.CurveID // nil: the usual ones
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{GetConfigForClient: s.configFor}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that clients give up
	s.StartTLS()
	t.Cleanup(s.Close)
	s.newTicketKeys()
	return s
}

func (s *server) configFor(*tls.ClientHelloInfo) (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hellos++
	if s.curves == nil {
		return nil, nil
	}
	config := s.TLS.Clone()
	config.CurvePreferences = s.curves
	return config, nil
}

// newTicketKeys makes the tickets so far worthless.
func (s *server) newTicketKeys() {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	s.TLS.SetSessionTicketKeys([][32]byte{key})
}

// setCurves has the server agree keys by some ways only; none are the usual ones.
func (s *server) setCurves(curves ...tls.CurveID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.curves = curves
}

func (s *server) handshakes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hellos
}

// client is the configuration of a client.
func (s *server) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{ServerName: "example.com", RootCAs: roots}
}

// dial makes a connection, reads what the server says, its ticket included, and returns what was agreed.
func (s *server) dial(t *testing.T, tickets *resume.Cache, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := tickets.Dial(config, func(config *tls.Config) (*tls.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", s.Listener.Addr().String(), config)
	})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState(), nil
}

// mustDial dials and wants to know how.
func (s *server) mustDial(t *testing.T, tickets *resume.Cache, config *tls.Config, resumed bool, curve tls.CurveID) {
	t.Helper()
	state, err := s.dial(t, tickets, config)
	if err != nil {
		t.Fatal(err)
	}
	if state.DidResume != resumed || state.CurveID != curve {
		t.Errorf("resumed %t with keys by %v, want %t by %v", state.DidResume, state.CurveID, resumed, curve)
	}
}

// sharing knows servers that open each other's tickets.
func sharing() *resume.Cache {
	tickets := new(resume.Cache)
	tickets.Learn(http.Header{wire.FeaturesHeader: {wire.FeatureSharedTickets}})
	return tickets
}

// A session that is resumed leaves ML-KEM out, again and again; one that is not has it.
func TestResumed(t *testing.T) {
	s := newServer(t)
	tickets, config := sharing(), s.client()
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	for range 3 {
		s.mustDial(t, tickets, config, true, tls.CurveP256)
	}
	if n := s.handshakes(); n != 4 {
		t.Errorf("%d handshakes for 4 connections", n)
	}
}

// A server that cannot open the ticket gets a handshake in full: a curve never stands alone.
func TestTicketThatIsNotOpened(t *testing.T) {
	s := newServer(t)
	tickets, config := sharing(), s.client()
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	s.newTicketKeys()
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	if n := s.handshakes(); n != 3 {
		t.Errorf("%d handshakes, want 3, one of which was given up", n)
	}
	s.mustDial(t, tickets, config, true, tls.CurveP256)
}

// Handshakes are in full with servers that do not say that they share tickets, or say so no more.
func TestTicketsThatAreNotShared(t *testing.T) {
	s := newServer(t)
	config := s.client()
	for name, tickets := range map[string]*resume.Cache{"silent": new(resume.Cache), "changed": sharing()} {
		tickets.Learn(http.Header{wire.FeaturesHeader: {wire.FeatureOrderedAcks}})
		t.Run(name, func(t *testing.T) {
			s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
			s.mustDial(t, tickets, config, true, tls.X25519MLKEM768)
		})
	}
}

// ML-KEM has its part again when that was long ago, and then light handshakes may follow as before. A clock that was set back
// counts as long.
func TestChainIsBounded(t *testing.T) {
	for _, age := range []time.Duration{resume.MaxChain, -time.Minute} {
		s := newServer(t)
		tickets, config := sharing(), s.client()
		s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
		for range 2 {
			s.mustDial(t, tickets, config, true, tls.CurveP256)
		}
		resume.Age(tickets, age)
		s.mustDial(t, tickets, config, true, tls.X25519MLKEM768)
		s.mustDial(t, tickets, config, true, tls.CurveP256)
		if n := s.handshakes(); n != 5 {
			t.Errorf("%d handshakes for 5 connections", n)
		}
	}
}

// A ticket of a session without ML-KEM does not stand in for it.
func TestTicketWithoutProtection(t *testing.T) {
	s := newServer(t)
	s.setCurves(tls.X25519)
	tickets, config := sharing(), s.client()
	for _, resumed := range []bool{false, true} {
		s.mustDial(t, tickets, config, resumed, tls.X25519)
	}
	s.setCurves()
	s.mustDial(t, tickets, config, true, tls.X25519MLKEM768)
	s.mustDial(t, tickets, config, true, tls.CurveP256)
}

// After a light handshake that failed the next one is in full.
func TestLightHandshakeIsRefused(t *testing.T) {
	s := newServer(t)
	tickets, config := sharing(), s.client()
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	s.setCurves(tls.X25519MLKEM768)
	if _, err := s.dial(t, tickets, config); err == nil {
		t.Error("a server took a key exchange that it does not have")
	}
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
}

// A server that cannot be reached leaves the ticket as it is.
func TestUnreachableServer(t *testing.T) {
	s := newServer(t)
	tickets, config := sharing(), s.client()
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	away := errors.New("away")
	if _, err := tickets.Dial(config, func(*tls.Config) (*tls.Conn, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("error is %v", err)
	}
	s.mustDial(t, tickets, config, true, tls.CurveP256)
}

// A configuration that chooses its key exchanges keeps them, and TLS 1.2 has no ML-KEM to leave out.
func TestConfigurationsOfTheirOwn(t *testing.T) {
	s := newServer(t)
	chosen, old := s.client(), s.client()
	chosen.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.CurveP384}
	old.MaxVersion = tls.VersionTLS12
	for config, exchange := range map[*tls.Config]tls.CurveID{chosen: tls.X25519MLKEM768, old: tls.X25519} {
		tickets := sharing()
		s.mustDial(t, tickets, config, false, exchange)
		s.mustDial(t, tickets, config, true, exchange)
	}
	if n := s.handshakes(); n != 4 {
		t.Errorf("%d handshakes for 4 connections", n)
	}
}

// Tickets of many servers are kept, and not those of any number.
func TestManyServers(t *testing.T) {
	s := newServer(t)
	tickets := sharing()
	config := s.client()
	config.InsecureSkipVerify = true // the certificate has one name
	visit := func(n int, resumed bool, exchange tls.CurveID) {
		t.Helper()
		config.ServerName = fmt.Sprintf("server-%d.test", n)
		s.mustDial(t, tickets, config, resumed, exchange)
	}
	const servers = 33
	for n := range servers {
		visit(n, false, tls.X25519MLKEM768)
	}
	visit(servers-1, true, tls.CurveP256)
	visit(1, true, tls.CurveP256)
	visit(0, false, tls.X25519MLKEM768)
}

// The caller's check of the connection is made for resumed sessions as well.
func TestOwnCheck(t *testing.T) {
	s := newServer(t)
	tickets, config := sharing(), s.client()
	refused := errors.New("refused")
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			return refused
		}
		return nil
	}
	s.mustDial(t, tickets, config, false, tls.X25519MLKEM768)
	if _, err := s.dial(t, tickets, config); !errors.Is(err, refused) {
		t.Errorf("error is %v, want that of the check", err)
	}
}
