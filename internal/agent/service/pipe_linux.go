package service

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// unread tells how many bytes are in a pipe, by either of its ends.
func unread(f *os.File) (n int, known bool) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil || ioctlErr != nil {
		return 0, false
	}
	return n, true
}

// otherEnd opens the reading end of a pipe by its writing end. Nil means that this cannot be done.
func otherEnd(f *os.File) *os.File {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	var end *os.File
	err = conn.Control(func(fd uintptr) {
		end, _ = os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(fd)), os.O_RDONLY|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil
	}
	return end
}
