//go:build unix && !linux

package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the programs, which this process stops in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
