package load

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil returns at a time, to about a tenth of a millisecond. The runtime's own timers are up to a millisecond late while
// nothing else happens: they end its wait for the network, which the runtime measures in milliseconds.
func sleepUntil(t time.Time) {
	for left := time.Until(t); left > 0; left = time.Until(t) {
		spec := unix.NsecToTimespec(int64(left))
		// A signal ends it early; the runtime sends some.
		if err := unix.Nanosleep(&spec, nil); err != nil && !errors.Is(err, unix.EINTR) {
			time.Sleep(left)
		}
	}
}
