package agent

import (
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/agent/disk"
)

// FileState keeps the state in a file, which its owner alone may read. The empty path is no place.
func FileState(path string) StateStore {
	if path == "" {
		return nil
	}
	return &stateFile{path: path}
}

// stateFile is a file, and the lock beside it while it is open.
type stateFile struct {
	path string
	lock *disk.Lock
}

func (f *stateFile) String() string { return "state file " + f.path }

// Open implements StateStore.
func (f *stateFile) Open() (err error) {
	f.lock, err = disk.TakeLock(f.path + ".lock")
	return err
}

// Load implements StateStore.
func (f *stateFile) Load(limit int64) ([]byte, error) { return disk.ReadLimited(f.path, limit) }

// Replace implements StateStore.
func (f *stateFile) Replace(data []byte) error { return disk.Replace(f.path, data) }

// SetAside implements StateStore.
func (f *stateFile) SetAside(now time.Time) (string, error) {
	aside := f.path + asideStamp(now)
	return aside, os.Rename(f.path, aside)
}

// Close implements StateStore.
func (f *stateFile) Close() { f.lock.Release() }
