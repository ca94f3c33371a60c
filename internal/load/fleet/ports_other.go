//go:build !linux

package fleet

import "syscall"

// shareSourcePorts needs a socket option that only Linux has.
func shareSourcePorts(_, _ string, _ syscall.RawConn) error { return nil }
