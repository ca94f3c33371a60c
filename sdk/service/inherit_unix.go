//go:build unix

package service

import (
	"fmt"
	"os"
	"syscall"
)

// adopt makes a file of an inherited descriptor, one that is not passed on and can be closed while it is read.
func adopt(number uintptr, name string) (*os.File, error) {
	var info syscall.Stat_t
	if err := syscall.Fstat(int(number), &info); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", number, err)
	}
	syscall.CloseOnExec(int(number))
	if err := syscall.SetNonblock(int(number), true); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", number, err)
	}
	return os.NewFile(number, name), nil
}
