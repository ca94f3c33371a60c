//go:build unix

package service_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/agent/service"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

func TestSocketPaths(t *testing.T) {
	config := func(path string) service.Spec {
		return service.Spec{Name: "walrus", Host: newDesk(), Config: pack(t, &socketpb.Config{ApiProxyPath: path})}
	}
	path := socketPath(t)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 104-len(dir)-1))
	modes := map[string]os.FileMode{"open parent": 0o755, "sticky parent": 0o700 | os.ModeSticky, "parent without rights": 0o500}
	for name, path := range map[string]string{
		"empty": "", "relative": "socket", "too long": long, "parent is a link": filepath.Join(link, "socket"),
		"open parent": path, "sticky parent": path, "parent without rights": path,
	} {
		if mode, found := modes[name]; found {
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
		}
		if svc, err := service.NewSocket(config(path)); err == nil {
			t.Errorf("%s: no error", name)
			stop(t, svc)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
			t.Errorf("%s: %q was left, %v", name, left, err)
		}
	}
	svc, err := service.NewSocket(config(long[:103])) // with its suffix all that fits
	if err != nil {
		t.Fatal(err)
	}
	stop(t, svc)
}

func TestSocketModes(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{path, path + ".tmp"} {
		if err := os.WriteFile(old, []byte("left by somebody"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	startSocket(t, newDesk(), &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary name: %v", err)
	}
}

func TestPipeNames(t *testing.T) {
	form := regexp.MustCompile(`^\\\\\.\\pipe\\[A-Za-z0-9_-]{128}$`)
	one, other := service.NewPipeName(), service.NewPipeName()
	if !form.MatchString(one) || one == other {
		t.Errorf("names are %q and %q", one, other)
	}
}
