package service

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
)

// A program finds the pipe by the file, and both hear each other. The next listener has another name.
func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "private", "socket")
	var before string
	for range 2 {
		listener, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(name), pipePrefix) || len(name) != len(pipePrefix)+128 || string(name) == before {
			t.Fatalf("pipe is %q, %v", name, err)
		}
		before = string(name)
		answered := make(chan error, 1)
		go func() { // waited for below
			conn, err := listener.Accept()
			if err != nil {
				answered <- err
				return
			}
			b := make([]byte, 4)
			_, err = io.ReadFull(conn, b)
			if err == nil {
				_, err = conn.Write(b)
			}
			answered <- errors.Join(err, conn.Close())
		}()
		patience := 10 * time.Second
		conn, err := winio.DialPipe(before, &patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Error(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || string(answer) != "ping" {
			t.Errorf("answer %q, %v", answer, err)
		}
		if err := errors.Join(<-answered, conn.Close(), listener.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := listen("socket"); err == nil {
		t.Error("a path that is not absolute is taken")
	}
}
