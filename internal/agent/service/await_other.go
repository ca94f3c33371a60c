//go:build !linux

package service

import "os/exec"

// awaitEnd waits for a process to end. What is sent to its group right after cannot reach another one in practice: process
// numbers are not used again so soon.
func awaitEnd(cmd *exec.Cmd) (reap func() error) {
	err := cmd.Wait()
	return func() error { return err }
}
