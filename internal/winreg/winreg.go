// Package winreg is the Windows registry as far as an agent uses it: keys below HKEY_LOCAL_MACHINE with values that are texts
// or bytes. Registry is an interface so that what is kept there, and how, can be tested on every system; package regtest has
// one in memory.
package winreg

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Root is what every path begins with.
const Root = `HKEY_LOCAL_MACHINE\`

// Errors on which callers act. A key or value that is not there is an os.ErrNotExist.
var (
	ErrKind        = errors.New("the value is of another type")
	ErrTooLarge    = errors.New("the value is larger than its kind can be")
	ErrLocked      = errors.New("another process has locked the key")
	ErrUnsupported = errors.New("only Windows has a registry")
)

// Registry opens keys by their whole path.
type Registry interface {
	// View opens a key for reading.
	View(path string) (Key, error)
	// Create opens a key for reading and writing. One that is missing is made, with those above it; only administrators and
	// the system have access to a key that was made.
	Create(path string) (Key, error)
}

// Key is an open key. Names of values are compared without regard to case.
type Key interface {
	// Text returns a string. References to environment variables are replaced in a value that is made for it.
	Text(name string) (string, error)
	SetText(name, value string) error
	// Binary returns at most limit bytes, or ErrTooLarge.
	Binary(name string, limit int64) ([]byte, error)
	// SetBinary replaces a value whole. It is on disk when the function returns.
	SetBinary(name string, data []byte) error
	Delete(name string) error
	// Names lists the values, sorted.
	Names() ([]string, error)
	// Lock keeps other processes that lock the same key away until Close, or says ErrLocked. It does not wait, and hinders
	// nobody who does not lock. The system drops the lock when the process ends.
	Lock() error
	Close() error
}

// maxComponent is how long the name of one key may be.
const maxComponent = 255

// CheckPath says what is wrong with the path of a key.
func CheckPath(path string) error {
	below, found := strings.CutPrefix(path, Root)
	if !found {
		return fmt.Errorf("%q does not begin with %s", path, Root)
	}
	for component := range strings.SplitSeq(strings.TrimRight(below, `\`), `\`) {
		switch {
		case component == "":
			return fmt.Errorf("%q has an empty part", path)
		case utf8.RuneCountInString(component) > maxComponent:
			return fmt.Errorf("%q has a part of more than %d characters", path, maxComponent)
		case strings.ContainsRune(component, 0):
			return fmt.Errorf("%q has a zero character in it", path)
		}
	}
	return nil
}

// Join is the path of what has the name below a key.
func Join(path, name string) string { return strings.TrimRight(path, `\`) + `\` + name }
