package limit_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/limit"
)

// slowKey signs when it is allowed to.
type slowKey struct {
	crypto.Signer
	allow chan struct{}
}

func (k *slowKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	<-k.allow
	return []byte("signed"), nil
}

func mustHandshakes(t *testing.T, cfg limit.HandshakeConfig) *limit.Handshakes {
	t.Helper()
	h, err := limit.NewHandshakes(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandshakesWaitInLine(t *testing.T) {
	const wait = time.Second
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Int32
		h := mustHandshakes(t, limit.HandshakeConfig{Concurrent: 2, Queue: 3, Wait: wait, OnRefuse: func() { refused.Add(1) }})
		key := &slowKey{allow: make(chan struct{})}
		certificate, err := h.Certificate(tls.Certificate{PrivateKey: key})
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 10)
		sign := func() {
			go func() {
				_, err := certificate.PrivateKey.(crypto.Signer).Sign(nil, nil, nil)
				results <- err
			}()
			synctest.Wait()
		}
		for range 5 {
			sign()
		}
		if h.Waiting() != 3 || len(results) != 0 {
			t.Fatalf("%d waiting, %d done", h.Waiting(), len(results))
		}
		sign() // one too many
		if err := <-results; !errors.Is(err, limit.ErrBusy) || refused.Load() != 1 {
			t.Errorf("error %v, %d refused", err, refused.Load())
		}
		key.allow <- struct{}{} // the first is done, the third takes its place
		if err := <-results; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if h.Waiting() != 2 {
			t.Errorf("%d waiting", h.Waiting())
		}
		time.Sleep(wait)
		synctest.Wait()
		for range 2 {
			if err := <-results; !errors.Is(err, limit.ErrBusy) {
				t.Errorf("after the wait: %v", err)
			}
		}
		close(key.allow)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if h.Waiting() != 0 || refused.Load() != 3 {
			t.Errorf("%d waiting, %d refused", h.Waiting(), refused.Load())
		}
	})
}

func TestBadHandshakeConfig(t *testing.T) {
	for _, cfg := range []limit.HandshakeConfig{{}, {Concurrent: 1}, {Concurrent: 1, Queue: 1}, {Queue: 1, Wait: 1}} {
		if h, err := limit.NewHandshakes(cfg); err == nil || h != nil {
			t.Errorf("%+v: %v, error %v", cfg, h, err)
		}
	}
	h := mustHandshakes(t, limit.HandshakeConfig{Concurrent: 1, Queue: 1, Wait: 1})
	if _, err := h.Certificate(tls.Certificate{PrivateKey: "no key"}); err == nil {
		t.Error("no error for a key that cannot sign")
	}
}

// TLS works with such a certificate, in both versions and with both kinds of keys, while other peers are silent after
// their hello.
func TestHandshakes(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": ec, "RSA": rsaKey} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				h := mustHandshakes(t, limit.HandshakeConfig{Concurrent: 1, Queue: 1, Wait: time.Second})
				certificate, err := h.Certificate(mustCertificate(t, key))
				if err != nil {
					t.Fatal(err)
				}
				server := &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: version}
				silent := newSilentPeer(t, server)
				<-silent.answered
				if err := handshake(server); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func mustCertificate(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// silentPeer says hello, and hears the beginning of the answer, which stands behind the signature. Then it does nothing
// until the end of the test.
type silentPeer struct {
	net.Conn
	answered chan struct{}
	ended    chan struct{}
}

func newSilentPeer(t *testing.T, server *tls.Config) *silentPeer {
	t.Helper()
	here, there := net.Pipe()
	peer := &silentPeer{Conn: here, answered: make(chan struct{}), ended: make(chan struct{})}
	var ends sync.WaitGroup
	ends.Go(func() { _ = tls.Server(there, server).Handshake() })
	ends.Go(func() { _ = tls.Client(peer, &tls.Config{InsecureSkipVerify: true}).Handshake() })
	t.Cleanup(func() {
		close(peer.ended)
		_ = here.Close()
		ends.Wait()
	})
	return peer
}

func (p *silentPeer) Read([]byte) (int, error) {
	if _, err := p.Conn.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	close(p.answered)
	<-p.ended
	return 0, io.EOF
}

// handshake runs one to its end.
func handshake(server *tls.Config) error {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	ended := make(chan error, 1)
	go func() { ended <- tls.Server(there, server).Handshake() }()
	if err := tls.Client(here, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
		return err
	}
	return <-ended
}

func TestMaxConnections(t *testing.T) {
	all, err := limit.MaxConnections(0)
	if err != nil || all <= 0 {
		t.Fatalf("%d connections, error %v", all, err)
	}
	if some, err := limit.MaxConnections(10); err != nil || some != all-10 {
		t.Errorf("%d connections beside 10 others, of %d; error %v", some, all, err)
	}
	for _, reserve := range []int{all, math.MaxInt, -1} {
		if n, err := limit.MaxConnections(reserve); err == nil {
			t.Errorf("%d connections with a reserve of %d", n, reserve)
		}
	}
}
