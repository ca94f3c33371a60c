//go:build !windows

package winreg

// System is the registry of the machine.
func System() Registry { return none{} }

// none is the registry of a system that has none.
type none struct{}

func (none) View(string) (Key, error) { return nil, ErrUnsupported }

func (none) Create(string) (Key, error) { return nil, ErrUnsupported }
