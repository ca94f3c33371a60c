package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Programs builds the daemons' binaries, each once and when it is first asked for.
type Programs struct {
	dir string

	mu    sync.Mutex
	built map[string]error // guarded by mu, which is held while one is built
}

// NewPrograms makes a temporary folder for binaries; Remove takes it away.
func NewPrograms() (*Programs, error) {
	dir, err := os.MkdirTemp("", "farspeak-programs-")
	if err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	return &Programs{dir: dir, built: make(map[string]error)}, nil
}

// Remove deletes the binaries.
func (p *Programs) Remove() error { return os.RemoveAll(p.dir) }

// Path is the binary of cmd/<name>, built with the race detector when the test itself is.
func (p *Programs) Path(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(p.dir, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	err, known := p.built[name]
	if !known {
		err = build(path, name)
		p.built[name] = err
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func build(path, name string) error {
	args := []string{"build", "-o", path}
	if RaceEnabled {
		args = append(args, "-race")
	}
	command := exec.Command("go", append(args, "./cmd/"+name)...)
	command.Dir = moduleRoot()
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, output)
	}
	return nil
}

// moduleRoot is the top of the source tree: two folders above this file.
func moduleRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
