//go:build !linux

package testmysql

import "os/exec"

// dieWithParent needs help of the kernel, which only Linux gives. Elsewhere Run stops the server.
func dieWithParent(*exec.Cmd) {}
