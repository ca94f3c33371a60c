// Package run carries the life of a process: command line, signals, exit code, build information. It is what main
// functions have in common; a main reads
//
//	func main() { os.Exit(run.Main(program, os.Args[1:])) }
//
// It imports only glog, since the endpoint's agent links it. Nothing here ends the process: the exit code is returned to
// main, also when a second signal asks to leave at once.
package run

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/golang/glog"
)

// flushTimeout bounds writing out the log at the end: a full disk must not keep a daemon from ending.
const flushTimeout = 2 * time.Second

// Exit codes. The flag package's code for a wrong command line is kept.
const (
	codeOK     = 0
	codeFailed = 1
	codeUsage  = 2
)

// Program describes a daemon.
type Program struct {
	Name  string // as it is called
	About string // one sentence for --help
	Serve func(ctx context.Context) error

	// Hangup is called, one call at a time, for each SIGHUP that arrives while Serve runs; signals in quick succession may
	// come as one. It has to return soon after the context is cancelled. When nil, SIGHUP is ignored.
	Hangup func(ctx context.Context)
}

// Main parses the command line and runs the program. It returns the exit code.
func Main(p Program, args []string) int {
	if code, ok := p.parse(args); !ok {
		return code
	}
	return Run(p)
}

// Run calls Serve and returns the exit code once it has returned: 0 for nil, 1 for an error, which is logged, or the code
// that WithCode put into it. SIGINT and SIGTERM cancel Serve's context; a context.Canceled that comes back then is no
// error. A second one makes Run return 1 at once, with Serve still running.
func Run(p Program) int {
	defer flush()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	endHangup := p.watchHangup(ctx)

	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx) }() // waited for below, but for the second signal, after which the process ends
	stopping := false
	for {
		select {
		case err := <-done:
			endHangup()
			return exitCode(err, stopping)
		case s := <-signals:
			if stopping {
				glog.Warningf("second signal (%v): leaving at once", s)
				return codeFailed
			}
			stopping = true
			glog.Infof("%v: stopping", s)
			cancel()
		}
	}
}

// watchHangup serves SIGHUP until the function that it returns is called.
func (p Program) watchHangup(ctx context.Context) (stop func()) {
	if p.Hangup == nil {
		signal.Ignore(syscall.SIGHUP)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hangups:
				p.Hangup(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
	}
}

// codeError is an error with an exit code of its own.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// WithCode wraps err so that Run returns this code. The error is logged as any other, for code 0 too.
func WithCode(code int, err error) error { return &codeError{code, err} }

func exitCode(err error, stopping bool) int {
	if err == nil || stopping && errors.Is(err, context.Canceled) {
		return codeOK
	}
	glog.ErrorDepth(1, err.Error())
	if e, ok := errors.AsType[*codeError](err); ok {
		return e.code
	}
	return codeFailed
}

// flush writes out the log, within bounds.
func flush() {
	done := make(chan struct{})
	go func() {
		glog.Flush()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(flushTimeout):
	}
}
