package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the programs, which this process stops in order, and end them with this
// process should it be killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
