package service

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// passChannel gives a command its ends of the two pipes, and returns the handles under which it finds them.
func passChannel(cmd *exec.Cmd, in, out *os.File) (inNumber, outNumber uintptr) {
	for _, f := range []*os.File{in, out} {
		// A handle that cannot be inherited fails the start.
		_ = windows.SetHandleInformation(windows.Handle(f.Fd()), windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT)
		cmd.SysProcAttr.AdditionalInheritedHandles = append(cmd.SysProcAttr.AdditionalInheritedHandles, syscall.Handle(f.Fd()))
	}
	return in.Fd(), out.Fd()
}
