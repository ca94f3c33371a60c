package tlsidle_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/tlsidle"
)

const patience = 10 * time.Second

// pair returns both ends of a TLS connection after its handshake, with a certificate at each of them.
func pair(t testing.TB, version uint16) (server, client *tls.Conn) {
	t.Helper()
	return pairAfter(t, version, func(*tls.Conn) {})
}

// pairAfter does something to the server's end before the handshake.
func pairAfter(t testing.TB, version uint16, prepare func(*tls.Conn)) (server, client *tls.Conn) {
	t.Helper()
	there, here := net.Pipe()
	t.Cleanup(func() { _ = there.Close(); _ = here.Close() })
	deadline := time.Now().Add(20 * time.Second)
	if there.SetDeadline(deadline) != nil || here.SetDeadline(deadline) != nil {
		t.Fatal("no deadlines")
	}
	certificate := selfSigned(t)
	server = tls.Server(there, &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, MaxVersion: version,
	})
	prepare(server)
	client = tls.Client(here, &tls.Config{Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if version == tls.VersionTLS13 { // the server's last message, the ticket, is read with the first byte
		go func() { _, _ = server.Write([]byte{1}) }()
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return server, client
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// A connection that was shrunk goes on: it reads and writes records of any size, again and again, and its end is an end.
func TestShrunkConnectionGoesOn(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			server, client := pair(t, version)
			for _, size := range []int{1, 100, 5_000, 1, 40_000, 1} {
				tlsidle.Shrink(server)
				echo(t, server, client, size)
			}
			tlsidle.Shrink(server)
			go func() { _ = client.Close() }()
			if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d bytes after the peer's close, %v; want io.EOF", n, err)
			}
		})
	}
}

// echo sends size bytes to the server and back.
func echo(t *testing.T, server, client *tls.Conn, size int) {
	t.Helper()
	sent := make([]byte, size)
	rand.Read(sent)
	done := make(chan error, 1)
	go func() {
		got := make([]byte, size)
		_, err := io.ReadFull(server, got)
		if err == nil {
			_, err = server.Write(got)
		}
		done <- err
	}()
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != string(sent) {
		t.Fatalf("%d bytes came back changed, or not: %v", size, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What was decrypted already is not lost.
func TestUnreadBytesStay(t *testing.T) {
	server, client := pair(t, tls.VersionTLS13)
	go func() { _, _ = client.Write([]byte("ab")) }()
	for _, want := range []string{"a", "b"} {
		var got [1]byte
		if _, err := io.ReadFull(server, got[:]); err != nil || string(got[:]) != want {
			t.Errorf("read %q, %v; want %q", got[:], err, want)
		}
		tlsidle.Shrink(server)
	}
}

// The fields are still there, in this version of Go: the certificate and the secrets are gone.
func TestShrink(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			server, _ := pair(t, version)
			before := server.ConnectionState()
			tlsidle.Shrink(server)
			after := server.ConnectionState()
			if len(before.PeerCertificates) != 1 || len(after.PeerCertificates) != 0 {
				t.Errorf("%d certificates before, %d after", len(before.PeerCertificates), len(after.PeerCertificates))
			}
			if _, err := after.ExportKeyingMaterial("label", nil, 16); err == nil {
				t.Error("keying material is still exported")
			}
			if after.Version != before.Version || after.CipherSuite != before.CipherSuite || !after.HandshakeComplete {
				t.Errorf("state %v, before %v", after, before)
			}
		})
	}
}

// Before its handshake a connection is left alone.
func TestShrinkBeforeTheHandshake(t *testing.T) {
	server, _ := pairAfter(t, tls.VersionTLS13, tlsidle.Shrink)
	state := server.ConnectionState()
	if _, err := state.ExportKeyingMaterial("label", nil, 16); err != nil || len(state.PeerCertificates) != 1 {
		t.Errorf("%d certificates, exported: %v", len(state.PeerCertificates), err)
	}
}

// What it is for: bytes of the heap that a connection gives up.
func TestShrinkFreesMemory(t *testing.T) {
	const connections = 50
	servers := make([]*tls.Conn, connections)
	for i := range servers {
		servers[i], _ = pair(t, tls.VersionTLS13)
	}
	before := liveHeap()
	for _, server := range servers {
		tlsidle.Shrink(server)
	}
	freed := (before - liveHeap()) / connections
	if freed < 3<<10 {
		t.Errorf("%d bytes given up by a connection, want 3 KiB at least", freed)
	}
	runtime.KeepAlive(servers)
}

// liveHeap is what the heap holds after a collection. The first one also empties pools and runs cleanups.
func liveHeap() int64 {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A connection is drained when all that came was read: whole records, parts of them, and the peer's goodbye.
func TestDrained(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			server, client := pair(t, version)
			drained := func(want bool, when string) {
				t.Helper()
				if got := tlsidle.Drained(server); got != want {
					t.Errorf("drained: %v %s, want %v", got, when, want)
				}
			}
			drained(true, "after the handshake")
			for _, size := range []int{2, 5_000} {
				echo(t, server, client, size)
				drained(true, "when all was read")
			}
			go func() { _, _ = client.Write([]byte("ab")) }()
			for _, left := range []string{"b", ""} {
				if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				drained(left == "", "with "+left+" unread")
			}
			go func() { _ = client.CloseWrite() }()
			if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("read %d bytes, %v", n, err)
			}
			drained(false, "after the end")
		})
	}
}

// A record that came in part is not drained.
func TestPartOfARecordIsNotDrained(t *testing.T) {
	server, client := pair(t, tls.VersionTLS13)
	go func() { _, _ = client.NetConn().Write([]byte{23, 3, 3}) }()
	for began := time.Now(); tlsidle.Drained(server) && time.Since(began) < patience; {
		// Nothing tells when the three bytes are there, so the read gives up now and then.
		if err := server.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("reading a part of a record: %v", err)
		}
	}
	if tlsidle.Drained(server) {
		t.Error("the part of a record is not seen")
	}
}

// Before its handshake nothing is known of a connection.
func TestDrainedBeforeTheHandshake(t *testing.T) {
	pairAfter(t, tls.VersionTLS13, func(server *tls.Conn) {
		if tlsidle.Drained(server) {
			t.Error("a connection is drained before its handshake")
		}
	})
}
