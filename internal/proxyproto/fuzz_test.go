package proxyproto_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/proxyproto"
)

// recordedConn is a connection on which everything has arrived already.
type recordedConn struct {
	net.Conn
	io.Reader
}

var recordedAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

func (c *recordedConn) Read(p []byte) (int, error)        { return c.Reader.Read(p) }
func (c *recordedConn) RemoteAddr() net.Addr              { return recordedAddr }
func (c *recordedConn) SetReadDeadline(t time.Time) error { return nil }

// oneListener accepts one connection.
type oneListener struct {
	net.Listener
	conn net.Conn
}

func (l oneListener) Accept() (net.Conn, error) { return l.conn, nil }

func FuzzHeader(f *testing.F) {
	for _, header := range []string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n", "PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n",
		"PROXY UNKNOWN\r\n", "PROXY garbage\r\n", "PROXY " + strings.Repeat("x", 200), "POST /message HTTP/1.1\r\n",
		"\x16\x03\x01\x02\x00\x01", v2(proxied, tcp4, block4), v2(proxied, tcp6, block6), v2(local, unspec, ""),
		v2(local, tcp4, ""), v2(proxied, unixStream, strings.Repeat("x", 216)), v2(proxied, tcp4, block4+"\x04\x00\x01x"),
	} {
		f.Add([]byte(header+"rest"), true)
		f.Add([]byte(header), false)
	}
	f.Fuzz(func(t *testing.T, sent []byte, required bool) {
		var reports []string
		conn, err := proxyproto.NewListener(
			oneListener{conn: &recordedConn{Reader: bytes.NewReader(sent)}},
			proxyproto.Config{
				Required: required,
				OnError:  func(reason string) { reports = append(reports, reason) },
				OnAbsent: func() { reports = append(reports, "absent") },
			}).Accept()
		if err != nil {
			t.Fatal(err)
		}
		source := conn.RemoteAddr().String()
		rest, err := io.ReadAll(conn)
		switch {
		case err != nil:
			if len(reports) != 1 || len(rest) != 0 || source != recordedAddr.String() {
				t.Errorf("error %v, reported %q, %d bytes, source %s", err, reports, len(rest), source)
			}
		case len(reports) == 1:
			if reports[0] != "absent" || required || !bytes.Equal(rest, sent) {
				t.Errorf("reported %q, %q of %q", reports, rest, sent)
			}
		default:
			header := len(sent) - len(rest)
			if len(reports) != 0 || header < len("PROXY UNKNOWN\r\n") || !bytes.Equal(rest, sent[header:]) {
				t.Errorf("reported %q, %q of %q", reports, rest, sent)
			}
			if _, _, err := net.SplitHostPort(source); err != nil {
				t.Errorf("source %q: %v", source, err)
			}
		}
	})
}
