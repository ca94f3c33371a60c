package winreg

import (
	"testing"

	"golang.org/x/sys/windows"
)

// What a user made is no lock, whatever its name.
func TestWhoseLocksCount(t *testing.T) {
	for text, want := range map[string]bool{
		"S-1-5-18":                true, // the system
		"S-1-5-32-544":            true, // administrators
		"S-1-5-32-545":            false,
		"S-1-1-0":                 false,
		"S-1-5-19":                false, // a service account
		"S-1-5-21-1-2-3-1001":     false,
		"S-1-5-21-1-2-3-544":      false,
		"S-1-5-80-1-2-3-4-544":    false,
		"S-1-5-32-18":             false,
		"S-1-5-21-1-2-3-18":       false,
		"S-1-15-2-1-2-3-4-5-6-18": false,
	} {
		owner, err := windows.StringToSid(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := trusted(owner); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}
