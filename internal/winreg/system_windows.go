package winreg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// System is the registry of the machine.
func System() Registry { return system{} }

type system struct{}

// View implements Registry.
func (system) View(path string) (Key, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, below(path), registry.READ)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &key{path: path, key: k}, nil
}

// Create implements Registry.
func (system) Create(path string) (Key, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	k, existed, err := registry.CreateKey(registry.LOCAL_MACHINE, below(path), registry.ALL_ACCESS)
	if err != nil {
		return nil, fmt.Errorf("open %s for writing: %w", path, err)
	}
	if !existed {
		err = restrict(k)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set the access rights of %s: %w", path, err), k.Close())
	}
	return &key{path: path, key: k}, nil
}

func below(path string) string { return strings.TrimRight(strings.TrimPrefix(path, Root), `\`) }

// ownAccess lets administrators and the system do everything, and others nothing: by default every user could read a
// machine's key.
const ownAccess = "D:P(A;CI;KA;;;BA)(A;CI;KA;;;SY)"

func restrict(k registry.Key) error {
	descriptor, err := windows.SecurityDescriptorFromString(ownAccess)
	if err != nil {
		return err
	}
	acl, _, err := descriptor.DACL()
	if err != nil {
		return err
	}
	const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	return windows.SetSecurityInfo(windows.Handle(k), windows.SE_REGISTRY_KEY, what, nil, nil, acl, nil)
}

// key is an open key of the machine.
type key struct {
	path string
	key  registry.Key
	lock windows.Handle // 0: none
}

// Text implements Key.
func (k *key) Text(name string) (string, error) {
	text, kind, err := k.key.GetStringValue(name)
	if err != nil {
		return "", k.fault("read", name, err)
	}
	if kind == registry.EXPAND_SZ {
		text, err = registry.ExpandString(text)
	}
	return text, err
}

// SetText implements Key.
func (k *key) SetText(name, value string) error {
	if err := k.key.SetStringValue(name, value); err != nil {
		return k.fault("write", name, err)
	}
	return k.flush()
}

// Binary implements Key. The value may grow between the look at its size and the reading, which is then done again.
func (k *key) Binary(name string, limit int64) ([]byte, error) {
	for {
		size, kind, err := k.key.GetValue(name, nil)
		switch {
		case err != nil:
			return nil, k.fault("read", name, err)
		case kind != registry.BINARY:
			return nil, k.fault("read", name, ErrKind)
		case int64(size) > limit:
			return nil, k.fault("read", name, ErrTooLarge)
		}
		data := make([]byte, max(size, 1))
		size, _, err = k.key.GetValue(name, data)
		if err == nil {
			return data[:size], nil
		}
		if !errors.Is(err, registry.ErrShortBuffer) {
			return nil, k.fault("read", name, err)
		}
	}
}

// SetBinary implements Key.
func (k *key) SetBinary(name string, data []byte) error {
	if err := k.key.SetBinaryValue(name, data); err != nil {
		return k.fault("write", name, err)
	}
	return k.flush()
}

// Delete implements Key.
func (k *key) Delete(name string) error {
	if err := k.key.DeleteValue(name); err != nil {
		return k.fault("delete", name, err)
	}
	return k.flush()
}

// Names implements Key.
func (k *key) Names() ([]string, error) {
	names, err := k.key.ReadValueNames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", k.path, err)
	}
	slices.Sort(names)
	return names, nil
}

// Close implements Key.
func (k *key) Close() error {
	err := k.key.Close()
	if k.lock != 0 {
		err = errors.Join(err, windows.CloseHandle(k.lock))
	}
	return err
}

func (k *key) fault(what, name string, err error) error {
	if errors.Is(err, registry.ErrUnexpectedType) {
		err = ErrKind
	}
	return fmt.Errorf("%s %s: %w", what, Join(k.path, name), err)
}

var regFlushKey = windows.NewLazySystemDLL("advapi32.dll").NewProc("RegFlushKey")

// flush has the system write the key to disk now, rather than when it finds the time.
func (k *key) flush() error {
	if code, _, _ := regFlushKey.Call(uintptr(k.key)); code != 0 {
		return fmt.Errorf("write %s to disk: %w", k.path, syscall.Errno(code))
	}
	return nil
}
