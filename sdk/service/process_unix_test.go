//go:build unix

package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/sdk/service"
)

const (
	// modeVariable makes this test's binary one of the services below.
	modeVariable = "FARSPEAK_TEST_SERVICE"
	// burstSize is how many messages the service "burst" sends.
	burstSize = 10_000
	// processTimeout ends a child of a test that hangs.
	processTimeout = time.Minute
)

// children are services that tests start as processes. What they return is printed, and makes the exit code 1.
var children = map[string]func(context.Context, *service.Daemon) error{
	"echo": func(ctx context.Context, d *service.Daemon) error { return service.Serve(ctx, d, answerText) },
	"burst": func(ctx context.Context, d *service.Daemon) error {
		for i := range burstSize {
			m, err := service.NewMessage("backend", "Number", wrapperspb.Int32(int32(i)))
			if err != nil {
				return err
			}
			if err := d.Send(ctx, m); err != nil {
				return err
			}
		}
		return nil
	},
	// A service that ends and leaves a process of its own behind.
	"parent": func(_ context.Context, d *service.Daemon) error {
		command := exec.Command("/bin/sh", "-c", "echo $FLEETSPEAK_COMMS_CHANNEL_INFD$FLEETSPEAK_COMMS_CHANNEL_OUTFD; exec sleep 60")
		out, err := command.StdoutPipe()
		if err != nil {
			return err
		}
		if err := command.Start(); err != nil {
			return err
		}
		line := make([]byte, 100)
		n, err := out.Read(line)
		if err != nil || string(line[:n]) != "\n" {
			return fmt.Errorf("the child of the service got %q, %w", line[:n], err)
		}
		m, err := service.NewMessage("backend", "Child", wrapperspb.Int32(int32(command.Process.Pid)))
		if err != nil {
			return err
		}
		return errors.Join(d.Send(context.Background(), m), d.Close())
	},
}

func TestMain(m *testing.M) {
	child := children[os.Getenv(modeVariable)]
	if child == nil {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), processTimeout)
	defer cancel()
	d, err := service.OpenDaemon(ctx, service.DaemonConfig{Version: "test"})
	if err == nil {
		err = errors.Join(child(ctx, d), d.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startChild starts a service as an agent does: with a pipe each way on descriptors 3 and 4. wait closes the agent's ends
// and says how the process ended.
func startChild(t *testing.T, mode string) (p *peer, pid int64, wait func() error) {
	t.Helper()
	childIn, toChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromChild, childOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), processTimeout)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, program)
	command.Env = append(os.Environ(), modeVariable+"="+mode,
		"FLEETSPEAK_COMMS_CHANNEL_INFD=3", "FLEETSPEAK_COMMS_CHANNEL_OUTFD=4", "FLEETSPEAK_CLIENT_ID=636c69656e744141")
	command.ExtraFiles = []*os.File{childIn, childOut}
	stderr := &strings.Builder{}
	command.Stderr = stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	childIn.Close()
	childOut.Close()
	wait = sync.OnceValue(func() error {
		toChild.Close()
		err := command.Wait()
		fromChild.Close()
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
	t.Cleanup(func() { _ = wait() })
	return &peer{tb: t, in: fromChild, out: toChild}, int64(command.Process.Pid), wait
}

func TestProcessAnswers(t *testing.T) {
	p, pid, wait := startChild(t, "echo")
	p.expectMagic()
	if got := p.expectStartup("test"); got != pid {
		t.Errorf("the service says that it is process %d, it is %d", got, pid)
	}
	p.sendMagic()
	for _, text := range []string{"a", strings.Repeat("x", 2<<20-200), "b"} {
		var sending sync.WaitGroup
		sending.Go(func() { p.send(request(t, text)) })
		if m := p.mustReceive(); textOf(m) != text {
			t.Errorf("to %d bytes came %d", len(text), len(textOf(m)))
		}
		sending.Wait()
	}
	if err := wait(); err != nil {
		t.Errorf("end of a service whose agent has closed its input: %v", err)
	}
}

// TestProcessGetsLargestMessage: exactly 2 MiB, both ways.
func TestProcessGetsLargestMessage(t *testing.T) {
	p, _, wait := startChild(t, "echo")
	p.greet("test")
	m := request(t, strings.Repeat("x", 2<<20-300))
	m.SourceMessageId = make([]byte, 2<<20-proto.Size(m)-3)
	m.SourceMessageId = m.SourceMessageId[:len(m.SourceMessageId)-(proto.Size(m)-2<<20)]
	if proto.Size(m) != 2<<20 {
		t.Fatalf("message of %d bytes", proto.Size(m))
	}
	var sending sync.WaitGroup
	sending.Go(func() { p.send(m) })
	if got := p.mustReceive(); textOf(got) != textOf(m) {
		t.Errorf("%d bytes came back", len(textOf(got)))
	}
	sending.Wait()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func TestProcessSendsManyInOrder(t *testing.T) {
	p, _, wait := startChild(t, "burst")
	p.greet("test")
	for i := range burstSize {
		m, err := p.receive()
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		number := &wrapperspb.Int32Value{}
		if err := m.Data.UnmarshalTo(number); err != nil || number.Value != int32(i) {
			t.Fatalf("message %d says %d, %v", i, number.Value, err)
		}
	}
	if _, err := p.receive(); err != io.EOF {
		t.Errorf("error %v after the last message, want io.EOF", err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestChildrenOfAServiceDoNotHoldIt: the agent sees the end of a service although a process that it started lives on.
func TestChildrenOfAServiceDoNotHoldIt(t *testing.T) {
	p, _, wait := startChild(t, "parent")
	p.greet("test")
	child := &wrapperspb.Int32Value{}
	if m := p.mustReceive(); m.Data.UnmarshalTo(child) != nil {
		t.Fatalf("got %v", m)
	}
	if _, err := p.receive(); err != io.EOF {
		t.Errorf("error %v, want io.EOF", err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
	process, err := os.FindProcess(int(child.Value))
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Errorf("the child of the service: %v", err)
	}
}

// TestAgentWasKilled: a service whose agent is gone gets errors and no signal.
func TestAgentWasKilled(t *testing.T) {
	in, toChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromChild, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{tb: t, in: fromChild, out: toChild}
	p.sendMagic()
	d, err := service.OpenDaemon(t.Context(), service.DaemonConfig{In: in, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	toChild.Close()
	fromChild.Close()
	if err := d.Send(t.Context(), toBackend(t, "x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Send: error %v, want EPIPE", err)
	}
	if err := d.Send(t.Context(), toBackend(t, "x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("second Send: error %v, want EPIPE", err)
	}
	if _, err := d.Receive(t.Context()); err != io.EOF {
		t.Errorf("Receive: error %v, want io.EOF", err)
	}
}

// TestCloseEndsAReadOfAPipe: nothing else would, the agent's end is open.
func TestCloseEndsAReadOfAPipe(t *testing.T) {
	in, toChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer toChild.Close()
	fromChild, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer fromChild.Close()
	(&peer{tb: t, in: fromChild, out: toChild}).sendMagic()
	d, err := service.OpenDaemon(t.Context(), service.DaemonConfig{In: in, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
