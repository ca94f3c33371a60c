package load

import "syscall"

// childAttributes keep the terminal's Ctrl-C from child processes: they end when this process tells them, or ends.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
