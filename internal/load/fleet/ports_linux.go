package fleet

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// shareSourcePorts leaves the choice of the port to the moment of connecting, when the kernel knows the destination: then a
// source address has as many ports for each destination as there are, and finds them fast.
func shareSourcePorts(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	if err == nil {
		err = failed
	}
	return err
}
