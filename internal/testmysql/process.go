package testmysql

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child process that is waited for.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // of Wait; valid after ended
}

// startProcess starts a child that does not outlive this process, whatever ends it.
func startProcess(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() { // ends with the child; end waits for it
		// The kernel ties the child to the thread that started it, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.ended)
	}()
	return p, <-started
}

// end sends a signal and waits; a child that does not end in time is killed.
func (p *process) end(signal syscall.Signal) error {
	_ = p.cmd.Process.Signal(signal) // it may have ended already
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("testmysql: mariadbd did not end within %v and was killed", stopTimeout)
	}
}
