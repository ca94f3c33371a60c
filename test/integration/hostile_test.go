package integration_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	// hostileMemory is what fs-server may occupy at any time of the test, whatever it is sent. 200 claims of 20 MiB
	// would come to 4 GiB if they were believed.
	hostileMemory = 512 << 20
	// hostileMemoryRace is the same with the race detector, which multiplies what memory costs.
	hostileMemoryRace = 2 << 30
	halfOpen          = 1000
	claims            = 200
	slow              = 100
)

// Whatever peers do, other clients go on: those that are connected, and those that come. Memory stays bounded.
func TestHostilePeers(t *testing.T) {
	i := install(t, shape{server: func(_ int, config *componentspb.Config) { config.ProxyProtocol = true }})
	server := i.servers[0]
	good := startWatch(t, i)

	t.Run("offences", func(t *testing.T) {
		for _, offence := range peer.Offences() {
			if err := offence.Commit(t.Context(), server.Target(), newKey(t)); err != nil {
				t.Errorf("%s: %v", offence.Name, err)
			}
		}
		good.check(t)
	})
	for _, siege := range []struct {
		name string
		lay  func(t *testing.T, server *harness.Server)
	}{
		{"one silent connection", func(t *testing.T, s *harness.Server) { hold(t, dialRaw(t, s.ClientAddress, "")) }},
		{"malformed PROXY headers", malformedProxyHeaders},
		{"one claim of 20 MiB without data", func(t *testing.T, s *harness.Server) { layClaims(t, s, 1) }},
		{"200 claims of 20 MiB without data", func(t *testing.T, s *harness.Server) { layClaims(t, s, claims) }},
		{"1000 half-open handshakes", halfOpenHandshakes},
		{"slow request headers", slowHeaders},
		{"slow records", slowRecords},
		{"garbage", garbage},
	} {
		t.Run(siege.name, func(t *testing.T) {
			siege.lay(t, server)
			good.check(t)
			began := time.Now()
			startAgents(t, 1, agentConfig(t, server.Target()))
			t.Logf("a new client got in after %v; fs-server occupies %d MiB", time.Since(began), server.ResidentBytes()>>20)
		})
	}
	longest, trips := good.figures()
	t.Logf("%d round trips of another client meanwhile, the longest took %v; fs-server occupied at most %d MiB",
		trips, longest, good.memory()>>20)
	bound := int64(hostileMemory)
	if harness.RaceEnabled {
		bound = hostileMemoryRace
	}
	if good.memory() > bound {
		t.Errorf("fs-server occupied %d MiB, want at most %d", good.memory()>>20, bound>>20)
	}
}

func newKey(t *testing.T) *peer.Key {
	t.Helper()
	key, err := peer.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// dialRaw connects and sends some bytes.
func dialRaw(t *testing.T, address, text string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, promptly)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// hold keeps a connection to the end of the test.
func hold(t *testing.T, conn io.Closer) { t.Cleanup(func() { _ = conn.Close() }) }

// malformedProxyHeaders has each cost its own connection and nothing else. (G-02)
func malformedProxyHeaders(t *testing.T, server *harness.Server) {
	for _, header := range []string{
		"PROXY NONSENSE\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n",
		"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\xff\xff\xff\xff",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x01\x00",
	} {
		conn := dialRaw(t, server.ClientAddress, header)
		if err := conn.SetReadDeadline(time.Now().Add(promptly)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%q: the server did not close the connection: %v", header, err)
		}
		_ = conn.Close()
	}
	hold(t, dialRaw(t, server.ClientAddress, "PROXY TCP4 1.2"))
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// layClaims opens sessions that announce a record of 20 MiB and send one byte of it. (G-03)
func layClaims(t *testing.T, server *harness.Server, count int) {
	each(t, count, func() error {
		session, err := server.Target().StartStream(t.Context(), newKey(t), false)
		if err != nil {
			return err
		}
		hold(t, closer(session.Close))
		return session.SendRaw(peer.Magic(), peer.AppendVarint(nil, 20<<20), []byte{0x0a})
	})
	claim := peer.AppendVarint(nil, 20<<20)
	each(t, count, func() error {
		session, _, err := server.Target().Open(t.Context(), newKey(t), false, emptyContact(), nil)
		if err != nil {
			return err
		}
		hold(t, closer(session.Close))
		return session.SendRaw(claim)
	})
}

type closer func()

func (c closer) Close() error { c(); return nil }

// each runs something many times, a few at a time.
func each(t *testing.T, count int, do func() error) {
	t.Helper()
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	for range count {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// halfOpenHandshakes begin TLS and stop: a third before the first byte, a third within the first message, a third after it.
func halfOpenHandshakes(t *testing.T, server *harness.Server) {
	hello := clientHello(t)
	for n := range halfOpen {
		part := hello[:len(hello)*(n%3)/2]
		hold(t, dialRaw(t, server.ClientAddress, string(part)))
	}
}

// clientHello is the first flight of a TLS client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() { // ends when the pipe is closed
		_ = tls.Client(here, &tls.Config{ServerName: "127.0.0.1"}).Handshake()
	}()
	defer func() { _ = here.Close(); _ = there.Close() }()
	buffer := make([]byte, 4096)
	n, err := there.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

// slowHeaders hold connections after the handshake with half a request.
func slowHeaders(t *testing.T, server *harness.Server) {
	each(t, slow, func() error {
		conn, err := server.Target().Dial(t.Context(), newKey(t))
		if err != nil {
			return err
		}
		hold(t, conn)
		_, err = io.WriteString(conn, "POST /streaming-message HTTP/1.1\r\nHost: h\r\nX-Slow: ")
		return err
	})
}

// slowRecords hold sessions in the middle of a record of which a byte comes now and then.
func slowRecords(t *testing.T, server *harness.Server) {
	var sessions []*peer.Session
	for range slow {
		session, _, err := server.Target().Open(t.Context(), newKey(t), false, emptyContact(), nil)
		if err != nil {
			t.Fatal(err)
		}
		hold(t, closer(session.Close))
		sessions = append(sessions, session)
	}
	for _, b := range append(peer.AppendVarint(nil, 1000), 1, 2, 3) {
		for _, session := range sessions {
			if err := session.SendRaw([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// garbage sends what belongs to no protocol, or to another one.
func garbage(t *testing.T, server *harness.Server) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "SSH-2.0-OpenSSH\r\n", "\x16\x03\x01\xff\xff" + strings.Repeat("\x00", 5000),
		strings.Repeat("\xff", 100_000), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		conn, err := net.DialTimeout("tcp", server.ClientAddress, promptly)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text) // the server may hang up in the middle
		hold(t, conn)
	}
}
