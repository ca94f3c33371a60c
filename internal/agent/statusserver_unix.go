//go:build unix

package agent

import (
	"errors"
	"syscall"
)

// ownerOnly has the socket made for its owner alone from the first moment, where the system heeds that before the bind.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var failure error
	err := c.Control(func(fd uintptr) { failure = syscall.Fchmod(int(fd), 0o600) })
	if errors.Is(failure, syscall.EINVAL) { // it does not; the mode is set right after the bind
		failure = nil
	}
	return errors.Join(err, failure)
}
