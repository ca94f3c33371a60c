package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// syncDir has nothing to do: NTFS journals the rename, and a directory cannot be flushed.
func syncDir(string) error { return nil }

// fileLock is held by the one agent that may use an identity. The file stays behind: removing it would let two processes
// lock two files of one name.
type fileLock struct{ file *os.File }

// lockFile takes the lock or says that it is taken; it does not wait. The system drops it when the process dies.
func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		err = errIdentityInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &fileLock{file: f}, nil
}

func (l *fileLock) release() { _ = l.file.Close() } // closing drops the lock
