//go:build linux || windows || darwin

package monitor_test

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/monitor"
)

// none is no process's number.
const none = 1 << 30

func TestReadOwnProcess(t *testing.T) {
	first, err := monitor.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if first.Resident < 1<<20 || first.Resident > 1<<40 || first.User < 0 || first.System < 0 || time.Since(first.At) > time.Minute {
		t.Errorf("got %+v", first)
	}
	if runtime.GOOS == "linux" && first.Descriptors < 3 {
		t.Errorf("%d descriptors", first.Descriptors)
	}
	for last := first; last.User+last.System == first.User+first.System; { // what it takes to look counts
		if last, err = monitor.Read(os.Getpid()); err != nil || last.User < first.User || last.System < first.System {
			t.Fatalf("after %+v: %+v, %v", first, last, err)
		}
	}
	if _, err := monitor.Read(none); err == nil {
		t.Error("a process that does not exist is read")
	}
}

// TestChild is the process that TestStartTime starts: it lives until its input ends.
func TestChild(t *testing.T) {
	if os.Getenv("FARSPEAK_TEST_CHILD") != "" {
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			t.Error(err)
		}
	}
}

func TestStartTime(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "FARSPEAK_TEST_CHILD=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := monitor.StartTime(cmd.Process.Pid)
	if err != nil || got.Sub(before).Abs() > 3*time.Second {
		t.Errorf("got %v, %v; it was started at %v", got, err, before)
	}
	if own, err := monitor.StartTime(os.Getpid()); err != nil || own.After(got) {
		t.Errorf("the test began at %v, %v, its child at %v", own, err, got)
	}
	if _, err := monitor.StartTime(none); err == nil {
		t.Error("a process that does not exist has a start time")
	}
	if err := input.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
