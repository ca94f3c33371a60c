package proxyproto_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/proxyproto"
)

// patience is for what has to happen; a test that passes never waits for it.
const patience = 10 * time.Second

// observer keeps what a Listener reports.
type observer struct {
	mu      sync.Mutex
	reports []string
}

func (o *observer) add(report string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reports = append(o.reports, report)
}

func (o *observer) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.reports)
}

// newTestListener listens on loopback and closes at the end of the test.
func newTestListener(tb testing.TB, cfg proxyproto.Config) (*proxyproto.Listener, *observer) {
	tb.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var o observer
	cfg.OnError = o.add
	cfg.OnAbsent = func() { o.add("absent") }
	l := proxyproto.NewListener(inner, cfg)
	tb.Cleanup(func() { _ = l.Close() })
	return l, &o
}

// connect dials and sends, and returns both ends of the connection.
func connect(tb testing.TB, l *proxyproto.Listener, send string) (client net.Conn, server *proxyproto.Conn) {
	tb.Helper()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	if _, err := io.WriteString(client, send); err != nil {
		tb.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = accepted.Close() })
	return client, accepted.(*proxyproto.Conn)
}

// v2 makes a version 2 header.
func v2(command, family byte, block string) string {
	header := "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family})
	return string(binary.BigEndian.AppendUint16([]byte(header), uint16(len(block)))) + block
}

const (
	local, proxied = 0, 1
	unspec         = 0x00
	tcp4, udp4     = 0x11, 0x12
	tcp6           = 0x21
	unixStream     = 0x31

	// From 192.0.2.7 port 4660 to 198.51.100.1 port 443.
	block4 = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb"
	// From 2001:db8::7 port 4660.
	block6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x12\x34\x01\xbb"
)

func TestHeaders(t *testing.T) {
	line107 := "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n"
	for _, test := range []struct {
		name, header string
		source       string // empty: that of the socket
	}{
		{"v1 TCP4", "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n", "192.0.2.7:4660"},
		{"v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n", "[2001:db8::7]:4660"},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", ""},
		{"v1 UNKNOWN with addresses", "PROXY UNKNOWN 192.0.2.7 198.51.100.1 4660 443\r\n", ""},
		{"v1 of 107 bytes", line107, ""},
		{"v2 TCP4", v2(proxied, tcp4, block4), "192.0.2.7:4660"},
		{"v2 TCP6", v2(proxied, tcp6, block6), "[2001:db8::7]:4660"},
		{"v2 with TLVs", v2(proxied, tcp4, block4+"\x04\x03\xe8"+strings.Repeat("\x00", 1000)), "192.0.2.7:4660"},
		{"v2 LOCAL", v2(local, unspec, ""), ""},
		{"v2 LOCAL with addresses", v2(local, tcp4, block4), ""},
		{"v2 of a datagram", v2(proxied, udp4, block4), ""},
		{"v2 of a socket file", v2(proxied, unixStream, strings.Repeat("x", 216)), ""},
	} {
		for _, required := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				l, o := newTestListener(t, proxyproto.Config{Required: required})
				client, server := connect(t, l, test.header+"hello")
				want := test.source
				if want == "" {
					want = client.LocalAddr().String()
				}
				if got := server.RemoteAddr().String(); got != want {
					t.Errorf("source %s, want %s", got, want)
				}
				if got := server.SocketAddr().String(); got != client.LocalAddr().String() {
					t.Errorf("socket %s, want %s", got, client.LocalAddr())
				}
				expectConversation(t, client, server, "hello")
				if seen := o.seen(); len(seen) != 0 {
					t.Errorf("reported %q", seen)
				}
			})
		}
	}
}

// expectConversation reads what was sent, and then passes bytes both ways.
func expectConversation(t *testing.T, client net.Conn, server *proxyproto.Conn, sent string) {
	t.Helper()
	if got := make([]byte, len(sent)); readFull(t, server, got) != sent {
		t.Errorf("read %q, want %q", got, sent)
	}
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := io.WriteString(pair[0], "more"); err != nil {
			t.Fatal(err)
		}
		if got := make([]byte, 4); readFull(t, pair[1], got) != "more" {
			t.Errorf("read %q", got)
		}
	}
}

// readFull reads in steps of two bytes, so that what was read ahead does not come at once.
func readFull(t *testing.T, r io.Reader, p []byte) string {
	t.Helper()
	for at := 0; at < len(p); {
		n, err := r.Read(p[at:min(at+2, len(p))])
		if err != nil {
			t.Fatalf("after %q: %v", p[:at], err)
		}
		at += n
	}
	return string(p)
}

func TestNoHeader(t *testing.T) {
	for _, sent := range []string{"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "\x16\x03\x01\x00\x80", "PROSE in plenty", "\r\n\r\n\x00\r\nQUIX\n", strings.Repeat("x", 1000)} {
		l, o := newTestListener(t, proxyproto.Config{})
		client, server := connect(t, l, sent)
		if got := server.RemoteAddr().String(); got != client.LocalAddr().String() {
			t.Errorf("%.10q: source %s, want %s", sent, got, client.LocalAddr())
		}
		expectConversation(t, client, server, sent)
		if seen := o.seen(); !slices.Equal(seen, []string{"absent"}) {
			t.Errorf("%.10q: reported %q", sent, seen)
		}
	}
}

func TestBadHeaders(t *testing.T) { // G-02
	for _, test := range []struct {
		name, sent string
		required   bool
		want       string
	}{
		{"v1 without addresses", "PROXY TCP4\r\n", false, proxyproto.ReasonMalformed},
		{"v1 with bad address", "PROXY TCP4 192.0.2.700 198.51.100.1 1 2\r\n", false, proxyproto.ReasonMalformed},
		{"v1 with bad port", "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n", false, proxyproto.ReasonMalformed},
		{"v1 with wrong family", "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", false, proxyproto.ReasonMalformed},
		{"v1 of unknown protocol", "PROXY SCTP 192.0.2.7 198.51.100.1 1 2\r\n", false, proxyproto.ReasonMalformed},
		{"v1 without CR", "PROXY UNKNOWN\n", false, proxyproto.ReasonMalformed},
		{"v1 of 108 bytes", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", false, proxyproto.ReasonMalformed},
		{"v1 without end", "PROXY " + strings.Repeat("x", 10000), false, proxyproto.ReasonMalformed},
		{"v1 in pieces", "PROXY TCP4 192.0.2.7", false, proxyproto.ReasonMalformed},
		{"nearly v1", "PROXIES are welcome\r\n", true, proxyproto.ReasonMissing},
		{"v2 of unknown command", v2(7, tcp4, block4), false, proxyproto.ReasonMalformed},
		{"v2 of unknown family", v2(proxied, 0x13, block4), false, proxyproto.ReasonMalformed},
		{"v2 without family", v2(proxied, unspec, ""), false, proxyproto.ReasonMalformed},
		{"v2 too short", v2(proxied, tcp4, block4[:11]), false, proxyproto.ReasonMalformed},
		{"v2 too long", v2(proxied, tcp4, block4+strings.Repeat("\x00", 65000)), false, proxyproto.ReasonMalformed},
		{"none where required", "GET / HTTP/1.1\r\n", true, proxyproto.ReasonMissing},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, o := newTestListener(t, proxyproto.Config{Required: test.required})
			client, server := connect(t, l, test.sent)
			err := server.ReadHeader()
			if err == nil || !slices.Equal(o.seen(), []string{test.want}) {
				t.Fatalf("error %v, reported %q, want %q", err, o.seen(), test.want)
			}
			if got := server.RemoteAddr().String(); got != client.LocalAddr().String() {
				t.Errorf("source %s, want the socket's", got)
			}
			if _, readErr := server.Read(make([]byte, 1)); readErr != err {
				t.Errorf("Read: %v", readErr)
			}
			if _, writeErr := server.Write([]byte("x")); writeErr != err {
				t.Errorf("Write: %v", writeErr)
			}
			if !slices.Equal(o.seen(), []string{test.want}) {
				t.Errorf("reported %q", o.seen())
			}
		})
	}
}

func TestTrustedSources(t *testing.T) {
	const header, none = "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n", ""
	loopback, other := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")
	for _, test := range []struct {
		name     string
		trusted  []netip.Prefix
		required bool
		header   string
		want     []string
	}{
		{"trusted, header", []netip.Prefix{other, loopback}, false, header, nil},
		{"trusted, no header", []netip.Prefix{loopback}, false, none, []string{"absent"}},
		{"untrusted, header", []netip.Prefix{other}, false, header, []string{proxyproto.ReasonUntrusted}},
		{"untrusted, UNKNOWN", []netip.Prefix{other}, false, "PROXY UNKNOWN\r\n", []string{proxyproto.ReasonUntrusted}},
		{"untrusted, LOCAL", []netip.Prefix{other}, false, v2(local, unspec, none), []string{proxyproto.ReasonUntrusted}},
		{"untrusted, no header", []netip.Prefix{other}, false, none, []string{"absent"}},
		{"untrusted, header required", []netip.Prefix{other}, true, header, []string{proxyproto.ReasonUntrusted}},
		{"untrusted, none though required", []netip.Prefix{other}, true, none, []string{proxyproto.ReasonMissing}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, o := newTestListener(t, proxyproto.Config{Trusted: test.trusted, Required: test.required})
			client, server := connect(t, l, test.header+"hello")
			err := server.ReadHeader()
			if !slices.Equal(o.seen(), test.want) || (err == nil) != (len(test.want) == 0 || test.want[0] == "absent") {
				t.Fatalf("error %v, reported %q, want %q", err, o.seen(), test.want)
			}
			if err == nil {
				expectConversation(t, client, server, "hello")
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	for name, sent := range map[string]string{"silence": "", "one byte": "P", "half of v2": v2(proxied, tcp4, block4)[:20]} {
		t.Run(name, func(t *testing.T) {
			l, o := newTestListener(t, proxyproto.Config{HeaderTimeout: 20 * time.Millisecond})
			_, server := connect(t, l, sent)
			if err := server.ReadHeader(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if seen := o.seen(); !slices.Equal(seen, []string{proxyproto.ReasonTimeout}) {
				t.Errorf("reported %q", seen)
			}
		})
	}
}

// Who connects and leaves again is counted, but not as one who forgot the header.
func TestProbe(t *testing.T) {
	for _, required := range []bool{false, true} {
		l, o := newTestListener(t, proxyproto.Config{Required: required})
		client, server := connect(t, l, "")
		_ = client.Close()
		if err := server.ReadHeader(); !errors.Is(err, io.EOF) {
			t.Errorf("error %v", err)
		}
		if seen := o.seen(); !slices.Equal(seen, []string{proxyproto.ReasonConnection}) {
			t.Errorf("reported %q", seen)
		}
	}
}

// The deadline of the header ends with it.
func TestDeadlineIsCleared(t *testing.T) {
	const timeout = 50 * time.Millisecond
	l, _ := newTestListener(t, proxyproto.Config{HeaderTimeout: timeout})
	client, server := connect(t, l, "PROXY UNKNOWN\r\n")
	if err := server.ReadHeader(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*timeout, func() { _, _ = io.WriteString(client, "late") })
	if got := make([]byte, 4); readFull(t, server, got) != "late" {
		t.Errorf("read %q", got)
	}
}

// A deadline set from outside stays in force beside that of the header, and comes back after it.
func TestDeadlineFromOutside(t *testing.T) {
	past := time.Unix(1, 0)
	l, _ := newTestListener(t, proxyproto.Config{HeaderTimeout: patience})
	_, before := connect(t, l, "")
	if err := before.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := before.ReadHeader(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("set before the header: %v", err)
	}

	_, during := connect(t, l, "")
	ended := make(chan error, 1)
	go func() { ended <- during.ReadHeader() }()
	for waiting := true; waiting; { // whether the read has begun cannot be seen, so the deadline is set until it works
		if err := during.SetReadDeadline(past); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("set during the header: %v", err)
			}
			waiting = false
		case <-time.After(time.Millisecond):
		}
	}

	_, after := connect(t, l, "PROXY UNKNOWN\r\n")
	if err := after.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := after.ReadHeader(); err != nil {
		t.Fatal(err)
	}
	if err := after.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := after.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("set after the header: %v", err)
	}
}

// Peers that are silent, broken or gone stop nobody else, and an HTTP server sees the address of the header.
func TestBadPeersBesideGoodOnes(t *testing.T) { // G-02
	l, _ := newTestListener(t, proxyproto.Config{HeaderTimeout: patience})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	for range 20 {
		for _, sent := range []string{"", "PROXY garbage\r\n", "\r\n\r\n\x00\r\nQUIT\nxxxx", "P"} {
			bad, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer bad.Close()
			_, _ = io.WriteString(bad, sent)
		}
		reset, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = reset.(*net.TCPConn).SetLinger(0)
		_ = reset.Close()
	}
	good, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	_ = good.SetDeadline(time.Now().Add(patience / 2)) // less than the silent ones have
	_, _ = io.WriteString(good, "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\nGET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(good)
	if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n192.0.2.7:4660") {
		t.Errorf("answer %q, error %v", answer, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("the server ended with %v", err)
	}
}

// One connection may be used from several goroutines while its header is read.
func TestConcurrentUse(t *testing.T) {
	l, _ := newTestListener(t, proxyproto.Config{})
	client, server := connect(t, l, "")
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			if got := server.RemoteAddr().String(); got != "192.0.2.7:4660" {
				t.Errorf("source %s", got)
			}
			_ = server.SetDeadline(time.Now().Add(patience))
			_, _ = server.Write([]byte("x"))
		})
	}
	_, _ = io.WriteString(client, "PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\nx")
	users.Go(func() { _ = readFull(t, server, make([]byte, 1)) })
	users.Wait()
}

func TestAcceptFailsWithItsListener(t *testing.T) {
	l, _ := newTestListener(t, proxyproto.Config{})
	_ = l.Close()
	if conn, err := l.Accept(); !errors.Is(err, net.ErrClosed) || conn != nil {
		t.Errorf("%v, error %v", conn, err)
	}
}
