//go:build unix

package service

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// group is a process that leads a process group, and all that stayed in the group. Signals are sent only while the leader
// was not waited for yet, so that they cannot reach somebody else with the same number.
type group struct{ leader int }

// ownGroup makes a command the leader of a group.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// newGroup is the group of a command that was started.
func newGroup(p *os.Process) *group { return &group{leader: p.Pid} }

// interrupt asks the processes to end. They may have ended by themselves.
func (g *group) interrupt() { _ = unix.Kill(-g.leader, unix.SIGINT) }

// kill ends the processes.
func (g *group) kill() { _ = unix.Kill(-g.leader, unix.SIGKILL) }

// release gives back what the group takes.
func (g *group) release() {}

// killProcess ends a process that is not in the group.
func killProcess(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }
