// Package regtest is a registry in memory, for the tests of what is kept in one.
package regtest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/farspeak/farspeak/internal/winreg"
)

// Memory is a registry that is empty at first.
type Memory struct {
	mu     sync.Mutex
	keys   map[string]map[string]value // by path and name, in lower case
	locked map[string]bool
	broken error
}

var _ winreg.Registry = (*Memory)(nil)

// value is a text or bytes.
type value struct {
	name string // as it was written first
	text *string
	data []byte
}

// New makes a registry.
func New() *Memory {
	return &Memory{keys: make(map[string]map[string]value), locked: make(map[string]bool)}
}

// Break has every write fail from now on; nil mends it.
func (m *Memory) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func fold(name string) string { return strings.ToLower(strings.TrimRight(name, `\`)) }

// View implements winreg.Registry.
func (m *Memory) View(path string) (winreg.Key, error) {
	if err := winreg.CheckPath(path); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[fold(path)] == nil {
		return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
	}
	return &key{registry: m, path: path}, nil
}

// Create implements winreg.Registry.
func (m *Memory) Create(path string) (winreg.Key, error) {
	if err := winreg.CheckPath(path); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	for p := fold(path); m.keys[p] == nil && strings.Contains(p, `\`); p = p[:strings.LastIndexByte(p, '\\')] {
		m.keys[p] = make(map[string]value)
	}
	return &key{registry: m, path: path, writable: true}, nil
}

// key is an open key.
type key struct {
	registry *Memory
	path     string
	writable bool
	locks    bool // holds the lock
}

func (k *key) get(name string) (value, error) {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	v, found := k.registry.keys[fold(k.path)][strings.ToLower(name)]
	if !found {
		return value{}, fmt.Errorf("read %s: %w", winreg.Join(k.path, name), os.ErrNotExist)
	}
	return v, nil
}

func (k *key) set(name string, v value) error {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	if err := k.registry.broken; err != nil {
		return err
	}
	if !k.writable {
		return fmt.Errorf("write %s: %w", winreg.Join(k.path, name), os.ErrPermission)
	}
	values := k.registry.keys[fold(k.path)]
	v.name = name
	if old, found := values[strings.ToLower(name)]; found {
		v.name = old.name
	}
	values[strings.ToLower(name)] = v
	return nil
}

// Text implements winreg.Key.
func (k *key) Text(name string) (string, error) {
	v, err := k.get(name)
	if err != nil {
		return "", err
	}
	if v.text == nil {
		return "", fmt.Errorf("read %s: %w", winreg.Join(k.path, name), winreg.ErrKind)
	}
	return *v.text, nil
}

// SetText implements winreg.Key.
func (k *key) SetText(name, text string) error { return k.set(name, value{text: &text}) }

// Binary implements winreg.Key.
func (k *key) Binary(name string, limit int64) ([]byte, error) {
	v, err := k.get(name)
	switch {
	case err != nil:
		return nil, err
	case v.text != nil:
		return nil, fmt.Errorf("read %s: %w", winreg.Join(k.path, name), winreg.ErrKind)
	case int64(len(v.data)) > limit:
		return nil, fmt.Errorf("read %s: %w", winreg.Join(k.path, name), winreg.ErrTooLarge)
	}
	return bytes.Clone(v.data), nil
}

// SetBinary implements winreg.Key.
func (k *key) SetBinary(name string, data []byte) error {
	return k.set(name, value{data: bytes.Clone(data)})
}

// Delete implements winreg.Key.
func (k *key) Delete(name string) error {
	if _, err := k.get(name); err != nil {
		return err
	}
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	if !k.writable {
		return fmt.Errorf("delete %s: %w", winreg.Join(k.path, name), os.ErrPermission)
	}
	delete(k.registry.keys[fold(k.path)], strings.ToLower(name))
	return k.registry.broken
}

// Names implements winreg.Key.
func (k *key) Names() ([]string, error) {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	names := []string{}
	for _, v := range k.registry.keys[fold(k.path)] {
		names = append(names, v.name)
	}
	slices.Sort(names)
	return names, nil
}

// Lock implements winreg.Key.
func (k *key) Lock() error {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	if k.locks {
		return nil
	}
	if k.registry.locked[fold(k.path)] {
		return fmt.Errorf("lock %s: %w", k.path, winreg.ErrLocked)
	}
	k.registry.locked[fold(k.path)], k.locks = true, true
	return nil
}

// Close implements winreg.Key.
func (k *key) Close() error {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	if k.locks {
		delete(k.registry.locked, fold(k.path))
	}
	return nil
}
