package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/golang/glog"
)

const (
	// statusTimeout bounds one answer, and the wait for one.
	statusTimeout = 2 * time.Second
	// maxStatusSize bounds what is read of an answer.
	maxStatusSize = 4 << 20
)

// statusServer answers each connection to a local socket with the agent's status as JSON, one after the other. Nothing is
// read from those who ask. The file system decides who may: the socket is its owner's alone.
type statusServer struct {
	status   func() Status
	listener net.Listener
}

// listenStatus opens the socket. What an agent left behind that was killed is replaced; the lock of the state file says
// that there is no other.
func listenStatus(path string, status func() Status) (*statusServer, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("status socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: ownerOnly}
	listener, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("status socket: %w", err)
	}
	return &statusServer{status: status, listener: listener}, nil
}

// runStatus serves the configured socket until ctx ends. An agent without one works all the same.
func (a *Agent) runStatus(ctx context.Context) {
	if a.cfg.StatusSocket == "" {
		return
	}
	s, err := listenStatus(a.cfg.StatusSocket, a.Status)
	if err != nil {
		glog.Warning(err)
		return
	}
	s.run(ctx)
}

func (s *statusServer) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			glog.Warningf("status socket: %v", err)
			if !pause(ctx, statusTimeout, nil) {
				return
			}
			continue
		}
		s.answer(conn)
	}
}

// answer writes the status; one who does not read it costs others no more than the timeout.
func (s *statusServer) answer(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(statusTimeout)); err != nil {
		return
	}
	_ = json.NewEncoder(conn).Encode(s.status()) // who asked sees that it is incomplete
}

// AskStatus asks the agent that listens on a socket.
func AskStatus(ctx context.Context, path string) (*Status, error) {
	var dialer net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 5*statusTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("no agent answers: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * statusTimeout)); err != nil {
		return nil, fmt.Errorf("ask for the status: %w", err)
	}
	s := &Status{}
	if err := json.NewDecoder(io.LimitReader(conn, maxStatusSize)).Decode(s); err != nil {
		return nil, fmt.Errorf("answer of the agent: %w", err)
	}
	return s, nil
}
