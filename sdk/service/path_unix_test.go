//go:build unix

package service_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/sdk/service"
)

// listenAsAgent makes a socket as agents do, in a folder of its own.
func listenAsAgent(t *testing.T) (listener *net.UnixListener, path string) {
	t.Helper()
	folder := filepath.Join(shortTempDir(t), "proxy")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(folder, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".tmp", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	t.Cleanup(func() { listener.Close() })
	if err := errors.Join(os.Chmod(path+".tmp", 0o600), os.Rename(path+".tmp", path)); err != nil {
		t.Fatal(err)
	}
	return listener, path
}

// shortTempDir is a temporary folder whose name leaves room for that of a socket.
func shortTempDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "fs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chown(folder, os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestSocketOverUnixSocket(t *testing.T) {
	listener, path := listenAsAgent(t)
	s, err := service.OpenSocket(service.SocketConfig{Path: path, Version: "7", Failed: func(err error) { t.Log(err) }})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := service.Serve(t.Context(), s, answerText); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	large := strings.Repeat("x", 2<<20-200)
	for range 2 { // an agent that is restarted
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		p := &peer{tb: t, in: conn, out: conn}
		p.greet("7")
		for _, text := range []string{"a", large, "b"} {
			var sending sync.WaitGroup
			sending.Go(func() { p.send(request(t, text)) })
			m := p.mustReceive()
			if textOf(m) != text {
				t.Errorf("to %d bytes came %d", len(text), len(textOf(m)))
			}
			sending.Wait()
			p.send(localAck(t, m.SourceMessageId))
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	serving.Wait()
}

// TestPathIsChecked: an agent's socket is in a folder that only the own user can change, and only the own user can use it.
func TestPathIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(folder, path string) error
		want  string
	}{
		"missing":           {func(_, path string) error { return os.Remove(path) }, "no such file"},
		"open socket":       {func(_, path string) error { return os.Chmod(path, 0o660) }, "Srw-rw----"},
		"read-only socket":  {func(_, path string) error { return os.Chmod(path, 0o400) }, "Sr--------"},
		"open folder":       {func(folder, _ string) error { return os.Chmod(folder, 0o750) }, "drwxr-x---"},
		"sticky folder":     {func(folder, _ string) error { return os.Chmod(folder, 0o700|fs.ModeSticky) }, "dtrwx------"},
		"setgid folder":     {func(folder, _ string) error { return os.Chmod(folder, 0o700|fs.ModeSetgid) }, "dgrwx------"},
		"file":              {func(_, path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, "-rw-------"},
		"link for a folder": {func(folder, _ string) error { return linkTo(folder) }, "Lrwxrwxrwx"},
		"link for a socket": {func(_, path string) error { return linkTo(path) }, "Lrwxrwxrwx"},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := listenAsAgent(t)
			if err := c.spoil(filepath.Dir(path), path); err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 10)
			s, err := service.OpenSocket(service.SocketConfig{Path: path, Failed: func(err error) { failed <- err }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := <-failed; !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// linkTo puts a symbolic link in place of a file, to that file.
func linkTo(path string) error {
	return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
}

func TestForeignSocketIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root can give a socket away; the check of owners is not tested")
		return
	}
	for name, spoil := range map[string]func(path string) error{
		"user of the socket":  func(path string) error { return os.Lchown(path, 12345, -1) },
		"group of the socket": func(path string) error { return os.Lchown(path, -1, 12345) },
		"user of the folder":  func(path string) error { return os.Lchown(filepath.Dir(path), 12345, -1) },
		"group of the folder": func(path string) error { return os.Lchown(filepath.Dir(path), -1, 12345) },
	} {
		_, path := listenAsAgent(t)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 10)
		s, err := service.OpenSocket(service.SocketConfig{Path: path, Failed: func(err error) { failed <- err }})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !strings.Contains(err.Error(), "belongs to user") {
			t.Errorf("%s: error %v", name, err)
		}
		s.Close()
	}
}

func TestPathsThatNoAgentHas(t *testing.T) {
	for name, path := range map[string]string{
		"none":     "",
		"relative": "run/s",
		"too long": "/" + strings.Repeat("x", service.LongestPath()),
	} {
		if _, err := service.OpenSocket(service.SocketConfig{Path: path}); err == nil {
			t.Errorf("%s: %q was taken", name, path)
		}
	}
	s, err := service.OpenSocket(service.SocketConfig{Path: "/" + strings.Repeat("x", service.LongestPath()-1)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
