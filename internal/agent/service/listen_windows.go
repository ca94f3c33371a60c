package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/Microsoft/go-winio"
)

// pipeAccess lets administrators and the system use a pipe, and nobody else.
const pipeAccess = "D:P(A;;GA;;;BA)(A;;GA;;;SY)"

// listen makes a named pipe under a random name, which stands in the file at path.
func listen(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path is not absolute")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	name := newPipeName()
	listener, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: pipeAccess})
	if err != nil {
		return nil, fmt.Errorf("make a named pipe: %w", err)
	}
	if err := publishName(path, name); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// publishName replaces the file at path by one with the pipe's name.
func publishName(path, name string) error {
	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temporary, []byte(name), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
