package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/Microsoft/go-winio"
)

// dialTimeout bounds the connection to a pipe, which is on this machine.
const dialTimeout = time.Second

// cleanPath returns the shortest form of a path on a drive.
func cleanPath(path string) (string, error) {
	if len(filepath.VolumeName(path)) != 2 || !filepath.IsAbs(path) { // a share has a longer name
		return "", fmt.Errorf(`%q is not of the form C:\...`, path)
	}
	return filepath.Clean(path), nil
}

// dialAgent connects to the pipe that the file at path names. Who may open the pipe is up to the agent that made it.
func dialAgent(ctx context.Context, path string) (net.Conn, error) {
	name, err := readPipeName(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return winio.DialPipeContext(ctx, name)
}

func readPipeName(path string) (string, error) {
	folder, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if !folder.IsDir() {
		return "", fmt.Errorf("%s is no folder", filepath.Dir(path))
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, int64(pipeNameSize)+1))
	if err != nil {
		return "", err
	}
	if !isPipeName(string(content)) {
		return "", fmt.Errorf("%s does not name a pipe of an agent", path)
	}
	return string(content), nil
}
