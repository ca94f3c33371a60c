package server_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"io"
	"net"
	"net/http/httputil"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/server"
)

// Tests of deadlines run in a bubble of testing/synctest, where time passes when everybody waits. Connections are pipes in
// memory there, because a socket is not part of the bubble, and clients are named by a header, as behind a load balancer.

const testHeader = "Client-Certificate"

// pipeListener accepts the server's ends of pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// dial returns the client's end of a new connection.
func (l *pipeListener) dial(t testing.TB) net.Conn {
	t.Helper()
	client, served := net.Pipe()
	select {
	case l.conns <- served:
	case <-l.closed:
		t.Fatal("the listener is closed")
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// inBubble runs a test with a server in a bubble.
func inBubble(t *testing.T, test func(t *testing.T, f *fixture, l *pipeListener), adjust ...func(*server.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := start(t, append([]func(*server.Config){func(c *server.Config) {
			extractor, err := clientcert.New(clientcert.Config{Mode: clientcert.CleartextHeader, CertificateHeader: testHeader})
			if err != nil {
				t.Fatal(err)
			}
			c.Listener, c.TLS, c.Certificates = l, nil, extractor
		}}, adjust...)...)
		test(t, f, l)
		f.stop()
	})
}

// openPipe starts a session of the agent through a pipe. What the server sends is read only when the test asks for it.
func (a *testAgent) openPipe(l *pipeListener, raw []byte) *testStream {
	a.t.Helper()
	return a.openPipeEncoded(l, "", raw)
}

// within says whether done is closed in less than d.
func within(d time.Duration, done <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// endOf closes its channel when the server ends the connection.
func (s *testStream) endOf() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, s.reader)
	}()
	return ended
}

// openPipeEncoded is openPipe with a Content-Encoding.
func (a *testAgent) openPipeEncoded(l *pipeListener, encoding string, raw []byte) *testStream {
	a.t.Helper()
	header := ""
	if encoding != "" {
		header = "Content-Encoding: " + encoding + "\r\n"
	}
	return a.openPipeWith(l, header, raw)
}

// openPipeWith is openPipe with more lines in the header.
func (a *testAgent) openPipeWith(l *pipeListener, header string, raw []byte) *testStream {
	a.t.Helper()
	s := &testStream{t: a.t, raw: l.dial(a.t)}
	s.request("POST /streaming-message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" +
		testHeader + ": " + clientcert.EncodeHeader(a.certificate.Certificate[0]) + "\r\n" + header + "\r\n")
	s.send(raw)
	return s
}

// request sends a request header.
func (s *testStream) request(header string) {
	s.t.Helper()
	if _, err := io.WriteString(s.raw, header); err != nil {
		s.t.Fatal(err)
	}
	s.body, s.reader = httputil.NewChunkedWriter(&wholeChunks{s.raw, nil}), bufio.NewReader(s.raw)
}

// wholeChunks sends each chunk in one write, as sockets do in effect: a write to a pipe waits until all of it is read.
type wholeChunks struct {
	w     io.Writer
	chunk []byte
}

func (c *wholeChunks) Write(p []byte) (int, error) {
	c.chunk = append(c.chunk, p...)
	if string(p) != "\r\n" { // which ends a chunk in a write of its own
		return len(p), nil
	}
	_, err := c.w.Write(c.chunk)
	c.chunk = c.chunk[:0]
	return len(p), err
}

func withLifetime(lifetime time.Duration) func(*server.Config) {
	return func(c *server.Config) { c.StreamLifetime = lifetime }
}

// deflated compresses the pieces of one stream, each flushed.
type deflated struct {
	t   testing.TB
	out bytes.Buffer
	zip *zlib.Writer
}

func newDeflated(t testing.TB) *deflated {
	d := &deflated{t: t}
	d.zip = zlib.NewWriter(&d.out)
	return d
}

func (d *deflated) piece(raw []byte) []byte {
	d.t.Helper()
	d.out.Reset()
	if _, err := d.zip.Write(raw); err != nil {
		d.t.Fatal(err)
	}
	if err := d.zip.Flush(); err != nil {
		d.t.Fatal(err)
	}
	return bytes.Clone(d.out.Bytes())
}
