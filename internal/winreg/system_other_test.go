//go:build !windows

package winreg_test

import (
	"errors"
	"testing"

	"github.com/farspeak/farspeak/internal/winreg"
)

func TestNoRegistry(t *testing.T) {
	const path = `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`
	_, viewing := winreg.System().View(path)
	_, creating := winreg.System().Create(path)
	if !errors.Is(viewing, winreg.ErrUnsupported) || !errors.Is(creating, winreg.ErrUnsupported) {
		t.Errorf("%v, %v", viewing, creating)
	}
}
