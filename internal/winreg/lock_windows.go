package winreg

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// lockAccess is as ownAccess, for the object that stands for a lock.
const lockAccess = "O:BAD:P(A;;GA;;;BA)(A;;GA;;;SY)"

// Lock implements Key. The lock is a named object: as long as somebody has it open, others learn that it was there. Any
// user can take the name first, but must not keep agents from running by it: an object that neither administrators nor the
// system own is nobody's lock.
func (k *key) Lock() error {
	if k.lock != 0 {
		return nil
	}
	handle, err := createLock(k.path)
	switch {
	case err == nil:
		k.lock = handle
		return nil
	case errors.Is(err, windows.ERROR_ACCESS_DENIED), errors.Is(err, windows.ERROR_INVALID_HANDLE):
		return nil // made by others, who let us not even look, or something else of this name
	case !errors.Is(err, windows.ERROR_ALREADY_EXISTS):
		return fmt.Errorf("lock %s: %w", k.path, err)
	}
	defer windows.CloseHandle(handle)
	ours, err := ownedByUs(handle)
	if err != nil {
		return fmt.Errorf("lock %s: %w", k.path, err)
	}
	if ours {
		return fmt.Errorf("lock %s: %w", k.path, ErrLocked)
	}
	return nil
}

// createLock makes the object, or opens it and says so.
func createLock(path string) (windows.Handle, error) {
	digest := sha256.Sum256([]byte(strings.ToLower(below(path))))
	name, err := windows.UTF16PtrFromString(fmt.Sprintf(`Global\farspeak-%x`, digest[:16]))
	if err != nil {
		return 0, err
	}
	descriptor, err := windows.SecurityDescriptorFromString(lockAccess)
	if err != nil {
		return 0, err
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	return windows.CreateMutexEx(attributes, name, 0, windows.READ_CONTROL)
}

// ownedByUs says whether administrators or the system made an object.
func ownedByUs(handle windows.Handle) (bool, error) {
	descriptor, err := windows.GetSecurityInfo(handle, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return false, err
	}
	owner, _, err := descriptor.Owner()
	if err != nil {
		return false, err
	}
	return trusted(owner), nil
}

func trusted(owner *windows.SID) bool {
	return owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid)
}
