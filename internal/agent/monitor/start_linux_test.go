package monitor_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/monitor"
)

func TestStartTime(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // it is killed
	defer cmd.Process.Kill() //nolint:errcheck // it was started
	got, err := monitor.StartTime(cmd.Process.Pid)
	if err != nil || got.Sub(before).Abs() > 3*time.Second {
		t.Errorf("got %v, %v; it was started at %v", got, err, before)
	}
	if own, err := monitor.StartTime(os.Getpid()); err != nil || own.After(got) {
		t.Errorf("the test began at %v, %v, its child at %v", own, err, got)
	}
	if _, err := monitor.StartTime(1 << 30); err == nil {
		t.Error("a process that does not exist has a start time")
	}
}
