//go:build unix

package limit

import "syscall"

// maxDescriptors is the soft limit, which the Go runtime has raised to the hard one.
func maxDescriptors() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return uint64(limit.Cur), nil
}
