package service

import (
	"sync"
	"time"
)

// State is what a service tells of the process at its other end.
type State struct {
	// PID is 0 when there is no process. Where the agent did not start it, it is what the process says.
	PID int `json:"pid,omitempty"`
	// Version is what the process says.
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Starts counts attempts to start a process, or connections.
	Starts int `json:"starts"`

	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// Stater is a service that has something to tell.
type Stater interface{ State() State }

// stateBoard keeps a State for its readers.
type stateBoard struct {
	mu    sync.Mutex
	state State
}

func (b *stateBoard) read() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// starting notes an attempt to start a process, or a connection.
func (b *stateBoard) starting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Starts++
}

// started notes a new process, or connection.
func (b *stateBoard) started(pid int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.PID, b.state.Version, b.state.Since = pid, "", time.Now()
}

// introduced notes what a process says about itself.
func (b *stateBoard) introduced(pid int, version string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.PID, b.state.Version = pid, version
}

// ended notes the end of a process or connection. One that was wanted is no error.
func (b *stateBoard) ended(cause error, wanted bool) {
	b.mu.Lock()
	b.state.PID, b.state.Version, b.state.Since = 0, "", time.Time{}
	b.mu.Unlock()
	if cause != nil && !wanted {
		b.fail(cause)
	}
}

func (b *stateBoard) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.LastError, b.state.LastErrorTime = err.Error(), time.Now()
}
