//go:build !linux

package load

import "syscall"

// childAttributes change nothing: children end with their input.
func childAttributes() *syscall.SysProcAttr { return nil }
