package service

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// ownGroup detaches a command from the agent's console signals.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// killGroup ends a command. What the command started is left to the system: Windows has no groups to kill.
func killGroup(p *os.Process) {
	_ = p.Kill() // it may have ended by itself
}
