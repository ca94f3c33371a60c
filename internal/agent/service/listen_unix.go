//go:build unix

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

const (
	socketMode   = 0o600
	socketParent = 0o700
	// temporarySuffix names the socket until it is safe.
	temporarySuffix = ".tmp"
)

// modeBits are the bits of a mode that have to be exactly right.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// listen makes a socket that only this user can reach: in a directory of its own mode, and complete before it gets its name.
// What had the name before is replaced.
func listen(path string) (net.Listener, error) {
	temporary := path + temporarySuffix
	if err := checkSocketPath(path, temporary); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), socketParent); err != nil {
		return nil, err
	}
	if err := checkSocketParent(filepath.Dir(path)); err != nil {
		return nil, err
	}
	for _, old := range []string{temporary, path} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // the name may be a successor's by then
	if err := publish(temporary, path); err != nil {
		return nil, errors.Join(err, listener.Close(), removeAny(temporary, path))
	}
	return listener, nil
}

// publish gives a socket its mode and then its name.
func publish(temporary, path string) error {
	if err := os.Chmod(temporary, socketMode); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return checkSocket(path)
}

func removeAny(paths ...string) error {
	var all error
	for _, path := range paths {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

func checkSocketPath(path, temporary string) error {
	if !filepath.IsAbs(path) {
		return errors.New("the path is not absolute")
	}
	longest := len(syscall.RawSockaddrUnix{}.Path) - 1 // the last byte is zero
	if len(temporary) > longest {
		return fmt.Errorf("the path is too long: with %q it may have %d bytes, it has %d", temporarySuffix, longest, len(temporary))
	}
	return nil
}

func checkSocketParent(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return checkPrivate(info, dir, socketParent)
}

func checkSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket", path)
	}
	return checkPrivate(info, path, socketMode)
}

// checkPrivate checks mode and owner.
func checkPrivate(info fs.FileInfo, path string, mode fs.FileMode) error {
	if got := info.Mode() & modeBits; got != mode {
		return fmt.Errorf("%s has mode %v, it has to be %v", path, got, mode)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the owner is unknown", path)
	}
	uid, gid := os.Getuid(), os.Getgid()
	// On macOS a directory's group is that of its parent, and those of the system have group 0 or 1.
	groupFits := int(owner.Gid) == gid || runtime.GOOS == "darwin" && owner.Gid <= 1
	if int(owner.Uid) != uid || !groupFits {
		return fmt.Errorf("%s belongs to %d:%d, it has to belong to %d:%d", path, owner.Uid, owner.Gid, uid, gid)
	}
	return nil
}
