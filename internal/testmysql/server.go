package testmysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout bounds how long a server takes until it answers, stopTimeout until it has ended.
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	// askEvery is how often a starting server is asked whether it is ready.
	askEvery = 20 * time.Millisecond
	// logTail is how much of the log, in bytes, an error shows.
	logTail = 2000
)

// Config is how a server differs from what tests get by default.
type Config struct {
	// Relaxed leaves out the sync at each commit: faster, and nothing that a crash test may use.
	Relaxed bool
	// Args are further arguments for mariadbd.
	Args []string
}

// Server is a MariaDB server. Its methods are not safe for concurrent use.
type Server struct {
	cfg     Config
	dir     string // short, for the socket
	address string
	process *process // nil when it does not run
}

// Start makes a server with an empty data folder and starts it. The caller stops it.
func Start(cfg Config) (*Server, error) {
	dir, err := os.MkdirTemp("", "fsdb")
	if err != nil {
		return nil, fmt.Errorf("testmysql: %w", err)
	}
	s := &Server{cfg: cfg, dir: dir}
	if err := s.install(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.Restart(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Address is where the server listens for TCP, host:port; it stays the same over restarts.
func (s *Server) Address() string { return s.address }

// PID is the process ID of the running server.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

// DSN is the data source name of a database on the server, for its root, who has no password.
func (s *Server) DSN(database string) string { return "root@tcp(" + s.address + ")/" + database }

// NewDatabase makes a database with a random name, which lives as long as the server.
func (s *Server) NewDatabase(ctx context.Context) (dsn string, err error) {
	dsn, _, err = createDatabase(ctx, s.DSN(""))
	return dsn, err
}

// Kill ends the server as a power cut would: kill -9. Restart brings it back.
func (s *Server) Kill() error {
	if s.process == nil {
		return errors.New("testmysql: the server does not run")
	}
	err := s.process.end(syscall.SIGKILL)
	s.process = nil
	return err
}

// Restart starts the server on its data and its port, after Kill, and returns when it answers.
func (s *Server) Restart() error {
	if s.process != nil {
		return errors.New("testmysql: the server runs")
	}
	if s.address == "" {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		s.address = address
	}
	p, err := startProcess(s.command())
	if err != nil {
		return fmt.Errorf("testmysql: %w", err)
	}
	if err := s.waitReady(p); err != nil {
		return errors.Join(err, p.end(syscall.SIGKILL))
	}
	s.process = p
	return nil
}

// Stop ends the server in order and removes its folder.
func (s *Server) Stop() error {
	var err error
	if s.process != nil {
		err = s.process.end(syscall.SIGTERM)
		s.process = nil
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// install makes the data folder.
func (s *Server) install() error {
	tool, err := exec.LookPath("mariadb-install-db")
	if err != nil {
		return fmt.Errorf("testmysql: MariaDB is needed (Debian: apt-get install mariadb-server): %w", err)
	}
	args := append([]string{
		"--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir=" + filepath.Join(s.dir, "data"),
	}, asUser()...)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("testmysql: %s: %w\n%s", tool, err, tail(out))
	}
	return nil
}

// asUser is needed by root only, as whom the server does not run without being told to.
func asUser() []string {
	if os.Geteuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

func (s *Server) command() *exec.Cmd {
	host, port, _ := net.SplitHostPort(s.address)
	flush := "1"
	if s.cfg.Relaxed {
		flush = "0"
	}
	args := append([]string{
		"--no-defaults",
		"--datadir=" + filepath.Join(s.dir, "data"),
		"--socket=" + filepath.Join(s.dir, "socket"),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--log-error=" + filepath.Join(s.dir, "log"),
		"--bind-address=" + host,
		"--port=" + port,
		"--innodb-flush-log-at-trx-commit=" + flush,
		"--innodb-buffer-pool-size=128M",
		"--max-connections=500",
		"--skip-log-bin",
		"--skip-name-resolve",
	}, asUser()...)
	return exec.Command("mariadbd", append(args, s.cfg.Args...)...)
}

// The port is taken from below the kernel's own choice for outgoing connections, so that none of them, nor a client that
// dials the stopped server, sits on it when the server is to come back.
const (
	firstPort = 10000
	portRange = 8000
	portTries = 100
)

func freeAddress() (string, error) {
	var err error
	for range portTries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(portRange)))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("testmysql: no free port: %w", err)
}

// waitReady asks the server until it answers.
func (s *Server) waitReady(p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	pool, err := sql.Open("mysql", s.DSN("")+"?timeout=1s")
	if err != nil {
		return fmt.Errorf("testmysql: %w", err)
	}
	defer pool.Close()
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		err := dial(ctx, s.address)
		if err == nil {
			err = pool.PingContext(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			return fmt.Errorf("testmysql: mariadbd ended: %w\n%s", p.err, s.log())
		case <-ctx.Done():
			return fmt.Errorf("testmysql: mariadbd does not answer: %w\n%s", err, s.log())
		}
	}
}

// dial spares the driver, which logs, the connections that are refused while the server starts.
func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (s *Server) log() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

func tail(text []byte) string {
	return strings.TrimSpace(string(text[max(0, len(text)-logTail):]))
}
