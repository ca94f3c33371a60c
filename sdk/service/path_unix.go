//go:build unix

package service

import (
	"context"
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
	folderMode = fs.ModeDir | 0o700
	socketMode = fs.ModeSocket | 0o600
)

// longestPath is how many bytes a path may have for an agent to listen there: it does so under a temporary name first.
func longestPath() int {
	const suffix = len(".tmp")
	if runtime.GOOS == "darwin" {
		return 103 - suffix
	}
	return 107 - suffix
}

// cleanPath returns the shortest form of a path at which an agent can listen.
func cleanPath(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not absolute", path)
	}
	path = filepath.Clean(path)
	if len(path) > longestPath() {
		return "", fmt.Errorf("%q is longer than %d bytes", path, longestPath())
	}
	return path, nil
}

// dialAgent connects to the socket at path, if nobody else can have put it there.
func dialAgent(ctx context.Context, path string) (net.Conn, error) {
	if err := checkOwn(filepath.Dir(path), folderMode); err != nil {
		return nil, err
	}
	if err := checkOwn(path, socketMode); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", path)
}

// checkOwn says what is wrong with a file that has to be of exactly this mode and of the user and group of this process.
func checkOwn(path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode() != mode {
		return fmt.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("this system does not tell who owns a file")
	}
	uid, gid := os.Getuid(), os.Getgid()
	if int(owner.Uid) != uid || int(owner.Gid) != gid && !(runtime.GOOS == "darwin" && owner.Gid <= 1) {
		return fmt.Errorf("%s belongs to user %d and group %d, want %d and %d", path, owner.Uid, owner.Gid, uid, gid)
	}
	return nil
}
