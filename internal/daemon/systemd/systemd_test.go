package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/daemon/systemd"
)

const childVariable = "FARSPEAK_TEST_CHILD"

// TestMain is also the daemon to which sockets are passed: it tells what it got.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

func child() {
	sockets := systemd.Inherited()
	l, err := sockets.Listen(context.Background(), systemd.Address{Name: "clients", Field: "f", Network: "tcp", Address: "localhost:0"})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println(l.Addr(), sockets.CloseUnused(), os.Getenv("LISTEN_FDS") == "")
}

func newListener(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fileOf(t *testing.T, s syscall.Conn) *os.File {
	t.Helper()
	f, err := s.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// passSockets runs the child as systemd would and returns what it said.
func passSockets(t *testing.T, names string, files ...*os.File) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1", "LISTEN_FDNAMES="+names, "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestPassedSocketIsListenedOn(t *testing.T) {
	l, other := newListener(t), newListener(t)
	got := passSockets(t, "stats:clients", fileOf(t, other), fileOf(t, l))
	if want := l.Addr().String() + " [stats] true"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithoutPassedSocketItBinds(t *testing.T) {
	got := passSockets(t, "")
	if !strings.HasPrefix(got, "127.0.0.1:") || !strings.HasSuffix(got, " [] true") {
		t.Errorf("got %q", got)
	}
}

func TestUnusablePassedSockets(t *testing.T) {
	a, b := newListener(t), newListener(t)
	got := passSockets(t, "clients:clients", fileOf(t, a), fileOf(t, b))
	if want := `error: systemd passed 2 sockets named "clients"; leave one ListenStream= in the unit`; got != want {
		t.Errorf("got %q", got)
	}
	regular, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	got = passSockets(t, "clients", regular)
	if !strings.HasPrefix(got, `error: socket "clients" passed by systemd cannot be listened on; use ListenStream= in its unit: `) {
		t.Errorf("got %q", got)
	}
}

func listen(t *testing.T, network, address string) (net.Listener, error) {
	t.Helper()
	l, err := (&systemd.Sockets{}).Listen(t.Context(), systemd.Address{Name: "n", Field: "admin_config.listen_address", Network: network, Address: address})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func TestBindErrorsNameFieldAndRemedy(t *testing.T) {
	taken := newListener(t).Addr().String()
	for _, tt := range []struct{ network, address, want string }{
		{"tcp", taken, "address already in use; another process listens there: stop it or choose another address"},
		{"tcp", "192.0.2.1:1", "cannot assign requested address; no interface of this machine has that address"},
		{"unix", "/nonexistent/x", "no such file or directory; create the directory, or use systemd's RuntimeDirectory="},
	} {
		_, err := listen(t, tt.network, tt.address)
		want := fmt.Sprintf("admin_config.listen_address: listening on %q: %s", tt.address, tt.want)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := listen(t, "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := listen(t, "unix", path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second daemon: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	if _, err := listen(t, "unix", path); err != nil {
		t.Errorf("after a killed daemon: %v", err)
	}
}

func TestUnixSocketNeverReplacesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, "unix", path); err == nil {
		t.Error("bound over a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// newManager stands for systemd: it receives notifications.
func newManager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotifications(t *testing.T) {
	c := newManager(t)
	for want, send := range map[string]func() error{
		"READY=1\nSTATUS=serving on :443": func() error { return systemd.Ready("serving on :443") },
		"READY=1":                         func() error { return systemd.Ready("") },
		"STOPPING=1\nSTATUS=draining":     func() error { return systemd.Stopping("draining") },
		"STATUS=two lines":                func() error { return systemd.Status("two\nlines") },
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := systemd.Ready("x"); err != nil {
		t.Error(err)
	}
	if err := systemd.Watchdog(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestLostManagerIsAnError(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := systemd.Ready("x"); err == nil {
		t.Error("no error")
	}
}

func TestWatchdogStopsWhenUnhealthy(t *testing.T) {
	c := newManager(t)
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	healthy := make(chan error) // one value for each question
	done := make(chan error, 1)
	go func() {
		done <- systemd.Watchdog(ctx, func(context.Context) error { return <-healthy })
	}()
	for range 2 {
		healthy <- nil
		if got := receive(t, c); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	healthy <- errors.New("ill")
	healthy <- errors.New("still ill") // by now the first answer has been dealt with
	if err := systemd.Status("end"); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); got != "STATUS=end" {
		t.Errorf("while unhealthy: got %q", got)
	}
	cancel()
	for {
		select {
		case healthy <- errors.New("ill"):
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}

func TestWatchdogPeriodIsChecked(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "-1")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	if err := systemd.Watchdog(t.Context(), nil); err == nil {
		t.Error("no error")
	}
}
