//go:build unix

package service_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// fakeHost keeps what a service sends.
type fakeHost struct {
	sent chan *fspb.Message
	fail error
}

func newHost() *fakeHost { return &fakeHost{sent: make(chan *fspb.Message, 100)} }

func (*fakeHost) ClientID() identity.ClientID { return identity.ClientID{1} }

func (h *fakeHost) Send(_ context.Context, m *fspb.Message, accepted func()) error {
	if h.fail != nil {
		return h.fail
	}
	h.sent <- m
	if accepted != nil {
		accepted()
	}
	return nil
}

func (h *fakeHost) Report(context.Context, string, proto.Message) error { return h.fail }

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func newStdin(t *testing.T, host service.Host, cmd string, args ...string) service.Service {
	t.Helper()
	svc, err := service.Standard().New("Stdin", service.Spec{Name: "walrus", Host: host,
		Config: pack(t, &stdinpb.Config{Cmd: cmd, Args: args})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { svc.Stop(context.WithoutCancel(t.Context())) })
	return svc
}

func input(t *testing.T, data []byte, args ...string) *fspb.Message {
	t.Helper()
	return &fspb.Message{MessageType: "StdinServiceInputMessage", Data: pack(t, &stdinpb.InputMessage{Input: data, Args: args})}
}

func output(t *testing.T, h *fakeHost) (*fspb.Message, *stdinpb.OutputMessage) {
	t.Helper()
	select {
	case m := <-h.sent:
		out := &stdinpb.OutputMessage{}
		if err := m.Data.UnmarshalTo(out); err != nil {
			t.Fatal(err)
		}
		return m, out
	default:
		t.Fatal("nothing was sent")
	}
	panic("not reached")
}

func TestStdinRunsTheCommand(t *testing.T) {
	h := newHost()
	svc := newStdin(t, h, "sh", "-c", `cat; echo "args: $*"; echo oops >&2`, "name", "configured")
	data := bytes.Repeat([]byte("0123456789abcdef"), 32<<10) // more than a pipe holds
	if err := svc.Process(t.Context(), input(t, data, "of the message")); err != nil {
		t.Fatal(err)
	}
	m, out := output(t, h)
	if m.Destination.GetServiceName() != "walrus" || len(m.Destination.ClientId) != 0 || m.MessageType != "StdinServiceOutputMessage" ||
		m.Priority != fspb.Message_MEDIUM || m.Background {
		t.Errorf("message is %v", m)
	}
	if want := string(data) + "args: configured of the message\n"; string(out.Stdout) != want || string(out.Stderr) != "oops\n" {
		t.Errorf("%d bytes of stdout, want %d; stderr %q", len(out.Stdout), len(want), out.Stderr)
	}
	if age := time.Since(out.Timestamp.AsTime()); age < 0 || age > time.Minute {
		t.Errorf("timestamp is %v old", age)
	}
}

func TestStdinIgnoredInput(t *testing.T) {
	h := newHost()
	if err := newStdin(t, h, "true").Process(t.Context(), input(t, make([]byte, 1<<20))); err != nil {
		t.Errorf("a command that does not read its input: %v", err)
	}
	output(t, h)
}

func TestStdinFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		command []string
		want    string
	}{
		"exit code":       {[]string{"sh", "-c", "echo lost; exit 3"}, "command failed: exit status 3"},
		"signal":          {[]string{"sh", "-c", "kill -9 $$"}, "command failed: signal: killed"},
		"no such program": {[]string{"/no/such/program"}, "command failed: "},
		"flood":           {[]string{"sh", "-c", "while :; do echo y; done"}, "command failed: too much output"}, // G-16
		"flood of errors": {[]string{"sh", "-c", "while :; do echo y >&2; done"}, "command failed: too much output"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost()
			err := newStdin(t, h, tt.command[0], tt.command[1:]...).Process(t.Context(), input(t, nil))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if len(h.sent) != 0 {
				t.Error("output of a failed command was sent")
			}
		})
	}
}

func TestStdinBadMessages(t *testing.T) {
	svc := newStdin(t, newHost(), "true")
	for name, m := range map[string]*fspb.Message{
		"wrong type":    {MessageType: "walrus", Data: pack(t, &stdinpb.InputMessage{})},
		"no data":       {MessageType: "StdinServiceInputMessage"},
		"wrong payload": {MessageType: "StdinServiceInputMessage", Data: pack(t, &stdinpb.OutputMessage{})},
		"bad payload": {MessageType: "StdinServiceInputMessage", Data: &anypb.Any{
			TypeUrl: "type.googleapis.com/fleetspeak.stdinservice.InputMessage", Value: []byte{0xff}}},
	} {
		if err := svc.Process(t.Context(), m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestStdinReportsWhatItCannotSend(t *testing.T) {
	h := newHost()
	h.fail = errors.New("too large")
	if err := newStdin(t, h, "echo").Process(t.Context(), input(t, nil)); !errors.Is(err, h.fail) {
		t.Errorf("got %v", err)
	}
}

// A stop kills the command with what it started, also when that holds the pipes and ignores SIGTERM.
func TestStdinStopKillsTheGroup(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	ctx, cancel := context.WithCancel(t.Context())
	svc := newStdin(t, newHost(), "sh", "-c", `trap "" TERM; (trap "" TERM; sleep 1000) & echo $! > `+pidFile+`.tmp; mv `+pidFile+`.tmp `+pidFile+`; wait`)
	done := make(chan error, 1)
	go func() { done <- svc.Process(ctx, input(t, nil)) }()
	pid := waitForPID(t, pidFile)
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a killed command succeeded")
		}
	case <-time.After(patience):
		t.Fatal("the stop does not end the command")
	}
	waitGone(t, pid)
}

// A process that left the group and keeps a pipe open cannot be killed, but holds nobody up.
func TestStdinStopDoesNotWaitForEscapedProcesses(t *testing.T) {
	if _, err := os.Stat("/usr/bin/setsid"); err != nil {
		t.Fatal("the test needs setsid of util-linux")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	svc := newStdin(t, newHost(), "sh", "-c", `setsid sh -c 'echo $$ > `+pidFile+`.tmp; mv `+pidFile+`.tmp `+pidFile+`; exec sleep 1000' & wait`)
	done := make(chan error, 1)
	go func() { done <- svc.Process(ctx, input(t, nil)) }()
	pid := waitForPID(t, pidFile)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the stop waits for a process that is not the command's")
	}
}

func waitForPID(t *testing.T, path string) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatal("the command does not start")
	return 0
}

// waitGone waits until a process has ended; a zombie that nobody reaped has.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

func TestConfigurations(t *testing.T) {
	for name, tt := range map[string]struct {
		factory string
		config  *anypb.Any
		good    bool
	}{
		"NOOP":            {"NOOP", nil, true},
		"NOOP, any type":  {"NOOP", pack(t, &stdinpb.Config{}), true},
		"Stdin":           {"Stdin", pack(t, &stdinpb.Config{Cmd: "true"}), true},
		"no config":       {"Stdin", nil, false},
		"another type":    {"Stdin", pack(t, &stdinpb.InputMessage{}), false},
		"no command":      {"Stdin", pack(t, &stdinpb.Config{}), false},
		"other case":      {"stdin", pack(t, &stdinpb.Config{Cmd: "true"}), false},
		"unknown factory": {"Walrus", nil, false},
	} {
		svc, err := service.Standard().New(tt.factory, service.Spec{Name: "s", Config: tt.config, Host: newHost()})
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			svc.Stop(t.Context())
		}
	}
}

func TestNOOP(t *testing.T) {
	svc, err := service.NewNOOP(service.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Process(t.Context(), &fspb.Message{}); err != nil {
		t.Errorf("got %v", err)
	}
	svc.Stop(t.Context())
}
