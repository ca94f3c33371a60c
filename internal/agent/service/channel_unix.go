//go:build unix

package service

import (
	"os"
	"os/exec"
)

// passChannel gives a command its ends of the two pipes, and returns the numbers under which it finds them.
func passChannel(cmd *exec.Cmd, in, out *os.File) (inNumber, outNumber uintptr) {
	cmd.ExtraFiles = []*os.File{in, out}
	return 3, 4 // the first behind the standard streams
}
