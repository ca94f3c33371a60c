package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

const (
	// socketMode lets the daemon's group connect to its Unix sockets.
	socketMode = 0o660
	// staleTimeout bounds the attempt to find somebody behind an existing Unix socket.
	staleTimeout = time.Second
)

// Address is where to listen and whom to blame when that fails.
type Address struct {
	Name    string // FileDescriptorName= of the socket unit that may have opened it already, such as "clients"
	Field   string // of the configuration, such as "https_config.listen_address"
	Network string // tcp or unix
	Address string // host:port or path
}

// Sockets are the sockets that systemd passed to the process.
type Sockets struct {
	mu    sync.Mutex
	files map[string][]*os.File // by name; guarded by mu
}

// Inherited takes over the sockets that systemd passed. It may be called once in a process, before it starts others.
func Inherited() *Sockets {
	s := &Sockets{files: map[string][]*os.File{}}
	for _, f := range activation.Files(true) {
		s.files[f.Name()] = append(s.files[f.Name()], f)
	}
	return s
}

// Listen returns the passed socket of that name, whatever the address, or else binds the address. Errors name the field
// and what to do.
func (s *Sockets) Listen(ctx context.Context, a Address) (net.Listener, error) {
	switch files := s.take(a.Name); len(files) {
	case 0:
		return bind(ctx, a)
	case 1:
		defer files[0].Close() // the listener has its own copy
		l, err := net.FileListener(files[0])
		if err != nil {
			return nil, fmt.Errorf("socket %q passed by systemd cannot be listened on; use ListenStream= in its unit: %w", a.Name, err)
		}
		return l, nil
	default:
		for _, f := range files {
			f.Close()
		}
		return nil, fmt.Errorf("systemd passed %d sockets named %q; leave one ListenStream= in the unit", len(files), a.Name)
	}
}

func (s *Sockets) take(name string) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.files[name]
	delete(s.files, name)
	return files
}

// CloseUnused closes the passed sockets that nothing has listened on and returns their names, which are worth a line in
// the log: they are misspelled, or their listener is not configured.
func (s *Sockets) CloseUnused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Sorted(maps.Keys(s.files))
	for _, files := range s.files {
		for _, f := range files {
			f.Close()
		}
	}
	clear(s.files)
	return names
}

func bind(ctx context.Context, a Address) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, a.Network, a.Address)
	if a.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && removeStale(a.Address) {
		l, err = lc.Listen(ctx, a.Network, a.Address)
	}
	if err != nil {
		return nil, explain(a, err)
	}
	if a.Network == "unix" {
		if err := os.Chmod(a.Address, socketMode); err != nil {
			l.Close()
			return nil, fmt.Errorf("%s: letting the group connect to %s: %w", a.Field, a.Address, err)
		}
	}
	return l, nil
}

// removeStale removes a socket that a killed process has left behind. It says whether it did.
func removeStale(path string) bool {
	st, err := os.Stat(path)
	if err != nil || st.Mode().Type() != fs.ModeSocket {
		return false
	}
	conn, err := net.DialTimeout("unix", path, staleTimeout)
	if err == nil {
		conn.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}

func explain(a Address, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "another process listens there: stop it or choose another address"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "no interface of this machine has that address"
	case errors.Is(err, fs.ErrPermission) && a.Network == "unix":
		remedy = "let the daemon's user write to the directory, or use systemd's RuntimeDirectory="
	case errors.Is(err, fs.ErrPermission):
		remedy = "ports below 1024 need CAP_NET_BIND_SERVICE: choose another, or add AmbientCapabilities= to the unit"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "create the directory, or use systemd's RuntimeDirectory="
	}
	if remedy == "" {
		return fmt.Errorf("%s: listening on %q: %w", a.Field, a.Address, err)
	}
	return fmt.Errorf("%s: listening on %q: %w; %s", a.Field, a.Address, cause(err), remedy)
}

// cause is the system's error without the wrapping that repeats the address.
func cause(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}
