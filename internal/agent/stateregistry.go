package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/disk"
	"github.com/farspeak/farspeak/internal/winreg"
)

// stateValue is the value of the registry key that holds the state, as the original names it.
const stateValue = "writeback"

// RegistryState keeps the state in a key of the Windows registry, which is made if it is missing.
func RegistryState(registry winreg.Registry, path string) StateStore {
	return &stateRegistry{registry: registry, path: path}
}

// stateRegistry is a value of a key, which is open and locked in between Open and Close.
type stateRegistry struct {
	registry winreg.Registry
	path     string
	key      winreg.Key
}

func (r *stateRegistry) String() string { return "registry value " + winreg.Join(r.path, stateValue) }

// Open implements StateStore.
func (r *stateRegistry) Open() error {
	key, err := r.registry.Create(r.path)
	if err != nil {
		return err
	}
	err = key.Lock()
	if errors.Is(err, winreg.ErrLocked) {
		err = fmt.Errorf("%w: %w", disk.ErrLocked, err)
	}
	if err != nil {
		return errors.Join(err, key.Close())
	}
	r.key = key
	return nil
}

// Load implements StateStore.
func (r *stateRegistry) Load(limit int64) ([]byte, error) {
	data, err := r.key.Binary(stateValue, limit)
	if errors.Is(err, winreg.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", disk.ErrTooLarge, err)
	}
	return data, err
}

// Replace implements StateStore. The system writes a value whole or not at all.
func (r *stateRegistry) Replace(data []byte) error { return r.key.SetBinary(stateValue, data) }

// SetAside implements StateStore. Values cannot be renamed: the copy is there before the value is written over.
func (r *stateRegistry) SetAside(now time.Time) (string, error) {
	data, err := r.key.Binary(stateValue, maxStateSize)
	if err != nil {
		return "", err
	}
	aside := stateValue + asideStamp(now)
	return winreg.Join(r.path, aside), r.key.SetBinary(aside, data)
}

// Close implements StateStore.
func (r *stateRegistry) Close() {
	if err := r.key.Close(); err != nil {
		glog.Warningf("%v: %v", r, err)
	}
}
