// Package debug is what operators and balancers ask a server daemon: health and metrics, each on its own plain HTTP
// listener. The agent does not link it.
//
// Both listeners are meant to be up before the daemon is ready and to end after everything else, so that a probe always
// gets an answer. Whoever calls Serve waits for it.
package debug

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/golang/glog"
	"golang.org/x/net/netutil"
)

// Limits of a connection to a debug listener. Probes and scrapers send small requests and read at once.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = time.Minute // a CPU profile takes 30 s
	idleTimeout     = 30 * time.Second
	maxHeaderBytes  = 16 << 10
	shutdownTimeout = time.Second // for requests in flight at the end

	// maxConnections bounds those of one listener, so that strangers cannot take the descriptors that the daemon needs.
	// Past it they wait in the accept queue until others end, which idle ones soon do.
	maxConnections = 32
)

// Serve answers on the listener until the context is done, and returns when the last request has ended, or a second later.
// It closes the listener. An error means that the listener failed.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(verboseLog{}, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err := <-done:
		return fmt.Errorf("debug listener %v: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(bounded) != nil {
		_ = srv.Close() // cuts off what did not end in time
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("debug listener %v: %w", l.Addr(), err)
	}
	return nil
}

// verboseLog takes what net/http says about broken connections; it matters to nobody who does not look for it.
type verboseLog struct{}

func (verboseLog) Write(b []byte) (int, error) {
	glog.V(1).Infof("debug listener: %s", b)
	return len(b), nil
}
