package service

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
)

// TestChild is the process that TestParent starts: it lives until its input ends.
func TestChild(t *testing.T) {
	if os.Getenv("FARSPEAK_TEST_CHILD") != "" {
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			t.Error(err)
		}
	}
}

func TestParent(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "FARSPEAK_TEST_CHILD=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, self := cmd.Process.Pid, os.Getpid()
	if parent, _, err := parentOf(child); parent != self || err != nil {
		t.Errorf("the parent is %d, %v, want %d", parent, err, self)
	}
	if !belongsTo(child, self) || belongsTo(self, child) {
		t.Error("child and parent are mistaken for one another")
	}
	if err := checkOlder(child, self); !errors.Is(err, errOrphan) { // as if the child had its parent's parent's number
		t.Errorf("a younger process can be a parent: %v", err)
	}
	if _, _, err := parentOf(1 << 30); err == nil {
		t.Error("a process that does not exist has a parent")
	}
	if err := errors.Join(input.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}
