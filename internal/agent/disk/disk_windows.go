package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir has nothing to do: NTFS journals the rename, and a directory cannot be flushed.
func SyncDir(string) error { return nil }

// Lock is held by the one process that may use something. The file stays behind: removing it would let two processes
// lock two files of one name.
type Lock struct{ file *os.File }

// TakeLock takes the lock or says that it is taken; it does not wait. The system drops it when the process dies.
func TakeLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{file: f}, nil
}

// Release lets another process take the lock.
func (l *Lock) Release() { _ = l.file.Close() } // closing drops the lock
