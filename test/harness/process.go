package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// startTimeout bounds a process's way to readiness; binaries with the race detector are slow.
	startTimeout = 60 * time.Second
	// stopTimeout bounds an orderly stop that nothing holds up.
	stopTimeout = 60 * time.Second
	// logTail is how much of a log is shown when a test fails.
	logTail = 8 << 10
)

// Process is one running program.
type Process struct {
	Name string

	tb      testing.TB
	path    string
	args    []string
	logPath string
	expect  atomic.Bool // it is meant to end

	command *exec.Cmd
	ended   chan struct{} // closed after err is set
	err     error
}

// Start runs a program until the test ends. Its output goes to a log file in dir.
func Start(tb testing.TB, dir, name, path string, args ...string) *Process {
	tb.Helper()
	p := &Process{Name: name, tb: tb, path: path, args: args, logPath: filepath.Join(dir, name+".log")}
	p.run()
	tb.Cleanup(p.cleanUp)
	return p
}

func (p *Process) run() {
	p.tb.Helper()
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer log.Close()
	p.command = exec.Command(p.path, p.args...)
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.expect.Store(false)
	ended := make(chan struct{})
	p.ended = ended
	started := make(chan error, 1)
	go func() { // ends with the process, which cleanUp waits for
		// The kernel ties the child's life to the thread that started it, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		started <- err
		if err == nil {
			p.err = p.command.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		p.tb.Fatalf("%s: %v", p.Name, err)
	}
}

// PID is the process's ID.
func (p *Process) PID() int { return p.command.Process.Pid }

// Kill ends the process as kill -9 does, and waits for it.
func (p *Process) Kill() {
	p.expect.Store(true)
	_ = p.command.Process.Kill()
	<-p.ended
}

// Signal sends a signal. The process may end from here on.
func (p *Process) Signal(s os.Signal) {
	p.tb.Helper()
	p.expect.Store(true)
	if err := p.command.Process.Signal(s); err != nil {
		p.tb.Errorf("%s: %v", p.Name, err)
	}
}

// Terminate stops the process by SIGTERM and returns after its end, which has to be an orderly one.
func (p *Process) Terminate() {
	p.tb.Helper()
	p.Signal(syscall.SIGTERM)
	if err := p.WaitEnd(stopTimeout); err != nil {
		p.tb.Errorf("%s after SIGTERM: %v", p.Name, err)
	}
}

// WaitEnd waits until the process has ended and returns how: nil for exit code 0.
func (p *Process) WaitEnd(within time.Duration) error {
	p.expect.Store(true)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(within):
		return fmt.Errorf("still running after %v", within)
	}
}

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Restart runs the program again after it ended.
func (p *Process) Restart() {
	p.tb.Helper()
	<-p.ended
	p.run()
}

// Log is everything that the process wrote, in all its runs.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// ResidentBytes is the memory that the process occupies now.
func (p *Process) ResidentBytes() int64 {
	p.tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		p.tb.Fatalf("%s: %v", p.Name, err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				p.tb.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	p.tb.Fatalf("%s: no resident size in its status", p.Name)
	return 0
}

func (p *Process) cleanUp() {
	if !p.Running() && !p.expect.Load() {
		p.tb.Errorf("%s ended by itself: %v", p.Name, p.err)
	}
	if p.Running() {
		_ = p.command.Process.Kill()
		<-p.ended
	}
	p.judgeLog()
}

// judgeLog looks for what no daemon may ever write, and shows the log's end when the test failed.
func (p *Process) judgeLog() {
	log, err := os.ReadFile(p.logPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.tb.Error(err)
	}
	for _, sign := range []string{"WARNING: DATA RACE", "\npanic: ", "fatal error: ", "panic while ", "panic in ", "goroutine 1 ["} {
		if at := bytes.Index(log, []byte(sign)); at >= 0 {
			p.tb.Errorf("%s wrote:\n%s", p.Name, log[at:min(len(log), at+logTail)])
			return
		}
	}
	if p.tb.Failed() {
		p.tb.Logf("end of the log of %s:\n%s", p.Name, log[max(0, len(log)-logTail):])
	}
}
