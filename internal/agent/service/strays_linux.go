package service

import (
	"math"

	"golang.org/x/sys/unix"
)

// closeStrays keeps descriptors that the agent itself was started with away from its children. Its own are closed on exec
// anyway; kernels that do not know the call leave the others as they are.
func closeStrays() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }
