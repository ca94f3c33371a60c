package run_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/daemon/run"
)

// The tests of signals and exit codes start this test binary again as a daemon; this variable says which.
const childVariable = "FARSPEAK_TEST_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childVariable); kind != "" {
		os.Exit(run.Main(children[kind], os.Args[1:]))
	}
	os.Exit(m.Run())
}

// say tells the test about an event.
func say(event string) { fmt.Println(event) }

func serveUntilStopped(ctx context.Context) error {
	say("ready")
	<-ctx.Done()
	say("stopping")
	return nil
}

var children = map[string]run.Program{
	"plain": {Name: "plain", Serve: serveUntilStopped},
	"canceled": {Name: "canceled", Serve: func(ctx context.Context) error {
		_ = serveUntilStopped(ctx)
		return fmt.Errorf("serving: %w", ctx.Err())
	}},
	"stubborn": {Name: "stubborn", Serve: func(ctx context.Context) error {
		_ = serveUntilStopped(ctx)
		select {}
	}, Hangup: func(context.Context) {
		say("hangup")
		select {}
	}},
	"fails": {Name: "fails", Serve: func(context.Context) error { return errors.New("no way\nbecause of two lines") }},
	"fails canceled": {Name: "fails", Serve: func(context.Context) error {
		return fmt.Errorf("nobody asked to stop: %w", context.Canceled)
	}},
	"seven":  {Name: "seven", Serve: func(context.Context) error { return fmt.Errorf("asked: %w", run.WithCode(7, errors.New("die"))) }},
	"hangup": {Name: "hangup", Serve: serveUntilStopped, Hangup: func(context.Context) { say("hangup") }},
}

// child is a running daemon.
type child struct {
	cmd    *exec.Cmd
	events *bufio.Scanner
	stderr strings.Builder
}

func start(t *testing.T, kind string, args ...string) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	c := &child{cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	c.cmd.Env = append(os.Environ(), childVariable+"="+kind)
	c.cmd.Stderr = &c.stderr
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.events = bufio.NewScanner(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.cmd.Wait() // reaps it when the test has not
	})
	return c
}

// expect waits for the next event.
func (c *child) expect(t *testing.T, event string) {
	t.Helper()
	if !c.events.Scan() || c.events.Text() != event {
		t.Fatalf("event %q, want %q; stderr: %s", c.events.Text(), event, c.stderr.String())
	}
}

func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (c *child) exit(t *testing.T) int {
	t.Helper()
	for c.events.Scan() { // up to the end of the pipe
	}
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

func TestFirstSignalStopsInOrder(t *testing.T) {
	for _, kind := range []string{"plain", "canceled"} {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			c := start(t, kind)
			c.expect(t, "ready")
			c.signal(t, s)
			c.expect(t, "stopping")
			if code := c.exit(t); code != 0 {
				t.Errorf("%s, %v: exit code %d; stderr: %s", kind, s, code, c.stderr.String())
			}
		}
	}
}

func TestSecondSignalLeavesAtOnce(t *testing.T) {
	c := start(t, "stubborn", "-logtostderr")
	c.expect(t, "ready")
	c.signal(t, syscall.SIGHUP)
	c.expect(t, "hangup") // which never returns either
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping")
	c.signal(t, syscall.SIGINT)
	if code := c.exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(c.stderr.String(), "second signal") {
		t.Errorf("stderr: %s", c.stderr.String())
	}
}

func TestErrorIsLoggedOnceAndGivesTheExitCode(t *testing.T) {
	for kind, want := range map[string]struct {
		code int
		text string
	}{
		"fails":          {1, "no way\nbecause of two lines"},
		"fails canceled": {1, "nobody asked to stop"},
		"seven":          {7, "asked: die"},
	} {
		c := start(t, kind, "--logtostderr=true")
		if code := c.exit(t); code != want.code {
			t.Errorf("%s: exit code %d", kind, code)
		}
		if n := strings.Count(c.stderr.String(), want.text); n != 1 {
			t.Errorf("%s: %d times in %q", kind, n, c.stderr.String())
		}
	}
}

func TestHangup(t *testing.T) {
	c := start(t, "hangup")
	c.expect(t, "ready")
	for range 3 {
		c.signal(t, syscall.SIGHUP)
		c.expect(t, "hangup")
	}
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping")
	if code := c.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestHangupIsIgnoredWithoutAHook(t *testing.T) {
	c := start(t, "plain")
	c.expect(t, "ready")
	c.signal(t, syscall.SIGHUP)
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping")
	if code := c.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestWrongCommandLine(t *testing.T) {
	for _, args := range [][]string{{"--walrus"}, {"-v"}, {"-v=x"}, {"--logtostderr=maybe"}, {"extra"}} {
		c := start(t, "plain", args...)
		if code := c.exit(t); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
		if out := c.stderr.String(); !strings.HasPrefix(out, "plain: ") || !strings.HasSuffix(out, "Run 'plain --help' for all flags.\n") {
			t.Errorf("%q: stderr: %s", args, out)
		}
	}
}
