package service

import (
	"fmt"
	"os"
	"syscall"
)

// adopt makes a file of an inherited handle, one that is not passed on.
func adopt(number uintptr, name string) (*os.File, error) {
	if err := syscall.SetHandleInformation(syscall.Handle(number), syscall.HANDLE_FLAG_INHERIT, 0); err != nil {
		return nil, fmt.Errorf("handle %d: %w", number, err)
	}
	return os.NewFile(number, name), nil
}
