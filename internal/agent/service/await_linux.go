package service

import (
	"os/exec"

	"golang.org/x/sys/unix"
)

// awaitEnd waits for a process to end. Its number stays taken until reap.
func awaitEnd(cmd *exec.Cmd) (reap func() error) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return cmd.Wait
		}
	}
}
