package service

import "golang.org/x/sys/unix"

// parentOf tells the parent and the process group of a process.
func parentOf(pid int) (parent, group int, err error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, 0, err
	}
	return int(info.Eproc.Ppid), int(info.Eproc.Pgid), nil
}
