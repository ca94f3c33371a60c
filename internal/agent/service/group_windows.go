package service

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// group is a process and what it started, as a job.
type group struct {
	leader *os.Process
	job    windows.Handle // 0 when the system gave none: then only the leader is killed
}

// ownGroup detaches a command from the agent's console signals.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// newGroup puts a command that was started into a job of its own. What the command had time to start before is not in it.
func newGroup(p *os.Process) *group {
	g := &group{leader: p}
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return g
	}
	const rights = windows.PROCESS_SET_QUOTA | windows.PROCESS_TERMINATE
	process, err := windows.OpenProcess(rights, false, uint32(p.Pid))
	if err == nil {
		err = windows.AssignProcessToJobObject(job, process)
		_ = windows.CloseHandle(process)
	}
	if err != nil {
		_ = windows.CloseHandle(job)
		return g
	}
	g.job = job
	return g
}

// interrupt ends the processes: there is no gentler way that reaches a process without a console.
func (g *group) interrupt() { g.kill() }

// kill ends the processes. They may have ended by themselves.
func (g *group) kill() {
	if g.job == 0 || windows.TerminateJobObject(g.job, 1) != nil {
		_ = g.leader.Kill()
	}
}

// release gives back what the group takes.
func (g *group) release() {
	if g.job != 0 {
		_ = windows.CloseHandle(g.job)
	}
}

// killProcess ends a process that is not in the group.
func killProcess(pid int) {
	process, err := windows.OpenProcess(windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return // it has gone
	}
	defer windows.CloseHandle(process)
	_ = windows.TerminateProcess(process, 1)
}
