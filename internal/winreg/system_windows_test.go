package winreg_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/farspeak/farspeak/internal/winreg"
)

// testPath is a key of this process alone, which is gone at the end of the test.
func testPath(t *testing.T) string {
	t.Helper()
	path := fmt.Sprintf(`%sSOFTWARE\FarspeakTest%d`, winreg.Root, os.Getpid())
	t.Cleanup(func() {
		below := strings.TrimPrefix(path, winreg.Root)
		_ = registry.DeleteKey(registry.LOCAL_MACHINE, below+`\below`)
		if err := registry.DeleteKey(registry.LOCAL_MACHINE, below); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestSystem(t *testing.T) { testRegistry(t, winreg.System(), testPath(t)) }

// A key that was made is no other user's to read.
func TestAccessToANewKey(t *testing.T) {
	path := testPath(t)
	k, err := winreg.System().Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	raw, err := registry.OpenKey(registry.LOCAL_MACHINE, strings.TrimPrefix(path, winreg.Root), windows.READ_CONTROL)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	got, err := windows.GetSecurityInfo(windows.Handle(raw), windows.SE_REGISTRY_KEY, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	text := got.String()
	if strings.Count(text, "(A;") != 2 || !strings.Contains(text, ";BA)") || !strings.Contains(text, ";SY)") {
		t.Errorf("access is %s", text)
	}
}

// What installers write with references to variables is read without them.
func TestTextWithVariables(t *testing.T) {
	path := testPath(t)
	k, err := winreg.System().Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	raw, err := registry.OpenKey(registry.LOCAL_MACHINE, strings.TrimPrefix(path, winreg.Root), registry.SET_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	t.Setenv("FARSPEAK_TEST", "here")
	if err := raw.SetExpandStringValue("text", `C:\%FARSPEAK_TEST%\x`); err != nil {
		t.Fatal(err)
	}
	if text, err := k.Text("text"); err != nil || text != `C:\here\x` {
		t.Errorf("%q, %v", text, err)
	}
}
