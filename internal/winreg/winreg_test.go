package winreg_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/winreg"
	"github.com/farspeak/farspeak/internal/winreg/regtest"
)

func TestPaths(t *testing.T) {
	for path, good := range map[string]bool{
		`HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`:         true,
		`HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient\`:        true,
		`HKEY_LOCAL_MACHINE\x/y z`:                             true,
		`HKEY_LOCAL_MACHINE\` + strings.Repeat("ä", 255):       true,
		`HKEY_LOCAL_MACHINE\` + strings.Repeat("a", 256):       false,
		`HKEY_LOCAL_MACHINE\a\\b`:                              false,
		`HKEY_LOCAL_MACHINE\`:                                  false,
		`HKEY_LOCAL_MACHINE`:                                   false,
		`HKEY_LOCAL_MACHINE\a` + "\x00":                        false,
		`HKEY_CURRENT_USER\SOFTWARE\FleetspeakClient`:          false,
		`HKLM\SOFTWARE\FleetspeakClient`:                       false,
		``:                                                     false,
		`hkey_local_machine\SOFTWARE\FleetspeakClient`:         false,
		`\HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient\client`: false,
	} {
		if err := winreg.CheckPath(path); (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
	}
	if got := winreg.Join(`HKEY_LOCAL_MACHINE\a\`, "b"); got != `HKEY_LOCAL_MACHINE\a\b` {
		t.Errorf("joined %s", got)
	}
}

func TestMemory(t *testing.T) { testRegistry(t, regtest.New(), `HKEY_LOCAL_MACHINE\SOFTWARE\test`) }

// testRegistry holds what every registry has to do, below a path that does not exist yet.
func testRegistry(t *testing.T, r winreg.Registry, path string) {
	t.Helper()
	if _, err := r.View(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a key that is not there: %v", err)
	}
	k, err := r.Create(winreg.Join(path, "below"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	testValues(t, k)
	view, err := r.View(winreg.Root + strings.ToUpper(winreg.Join(strings.TrimPrefix(path, winreg.Root), "below")))
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if text, err := view.Text("TEXT"); err != nil || text != `C:\some where\ü` {
		t.Errorf("another's text is %q, %v", text, err)
	}
	if err := view.SetText("text", "x"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("writing to a key that is open for reading: %v", err)
	}
	testLock(t, r, path)
}

func testValues(t *testing.T, k winreg.Key) {
	t.Helper()
	if _, err := k.Text("text"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no text: %v", err)
	}
	if _, err := k.Binary("data", 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no data: %v", err)
	}
	if err := k.Delete("data"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deletes nothing: %v", err)
	}
	data := bytes.Repeat([]byte{0, 1, 255}, 50_000)
	for _, err := range []error{
		k.SetText("text", "first"), k.SetText("text", `C:\some where\ü`), k.SetBinary("data", []byte{1}), k.SetBinary("Data", data),
		k.SetBinary("empty", nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := k.Binary("data", int64(len(data))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := k.Binary("data", int64(len(data)-1)); !errors.Is(err, winreg.ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	if got, err := k.Binary("empty", 0); err != nil || len(got) != 0 {
		t.Errorf("no bytes: %d, %v", len(got), err)
	}
	if _, err := k.Binary("text", 1000); !errors.Is(err, winreg.ErrKind) {
		t.Errorf("text for bytes: %v", err)
	}
	if _, err := k.Text("data"); !errors.Is(err, winreg.ErrKind) {
		t.Errorf("bytes for text: %v", err)
	}
	if names, err := k.Names(); err != nil || !slices.Equal(names, []string{"data", "empty", "text"}) {
		t.Errorf("names are %q, %v", names, err)
	}
	if err := k.Delete("EMPTY"); err != nil {
		t.Error(err)
	}
	if names, err := k.Names(); err != nil || len(names) != 2 {
		t.Errorf("names are %q, %v", names, err)
	}
}

func testLock(t *testing.T, r winreg.Registry, path string) {
	t.Helper()
	open := func() winreg.Key {
		k, err := r.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	holder, other := open(), open()
	if err := errors.Join(holder.Lock(), holder.Lock()); err != nil {
		t.Errorf("lock: %v", err)
	}
	if err := other.Lock(); !errors.Is(err, winreg.ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	if err := holder.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Lock(); err != nil {
		t.Errorf("the lock stays: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}
