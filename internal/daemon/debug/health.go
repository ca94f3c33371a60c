package debug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/golang/glog"
)

const (
	checkTimeout = 2 * time.Second // a check that takes longer has failed
	checkTTL     = time.Second     // how long a result is good, so that probes cost the store nothing
)

// phase is where the daemon is in its life.
type phase int

const (
	starting phase = iota
	serving
	draining
)

// Health answers the probes of balancers and service managers:
//
//	/healthz   200 "alive": the process can answer
//	/readyz    200 "ready", or 503 with the failing checks, one name a line: "starting", "draining", or those added
//	others     200 and no body, with every method, as the original's health check
//
// Bodies hold names only; the reasons, which may tell of hosts and users, go to the log, once for each change.
type Health struct {
	mu     sync.Mutex
	phase  phase    // guarded by mu
	checks []*check // guarded by mu; each guards itself
}

// NewHealth returns the health of a daemon that starts.
func NewHealth() *Health { return &Health{} }

// Add registers a check under a short name such as "store" or "listener". It is called at most once a second, one call at
// a time, and only when a probe asks. It has to return when its context is done.
func (h *Health) Add(name string, f func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, &check{name: name, f: f, turn: make(chan struct{}, 1)})
}

// Started says that the daemon serves from now on: it is ready while its checks pass.
func (h *Health) Started() { h.enter(serving) }

// Drain says that the daemon is about to end: it is not ready any more.
func (h *Health) Drain() { h.enter(draining) }

// enter goes forward only: a daemon told to stop while it starts stays draining.
func (h *Health) enter(p phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = max(h.phase, p)
}

// Failing returns the names of what keeps the daemon from being ready, none when it is.
func (h *Health) Failing(ctx context.Context) []string {
	h.mu.Lock()
	phase, checks := h.phase, h.checks[:len(h.checks):len(h.checks)]
	h.mu.Unlock()
	var failing []string
	switch phase {
	case starting:
		failing = append(failing, "starting")
	case draining:
		failing = append(failing, "draining")
	}
	failed := make([]bool, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { failed[i] = c.result(ctx) != nil })
	}
	wg.Wait()
	for i, c := range checks {
		if failed[i] {
			failing = append(failing, c.name)
		}
	}
	return failing
}

// ServeHTTP answers a probe.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		_, _ = io.WriteString(w, "alive\n")
	case "/readyz":
		h.serveReady(w, r)
	}
}

func (h *Health) serveReady(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	failing := h.Failing(r.Context())
	if len(failing) == 0 {
		_, _ = io.WriteString(w, "ready\n")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, name := range failing {
		fmt.Fprintln(w, name)
	}
}

// check is one function and its last result.
type check struct {
	name string
	f    func(context.Context) error

	turn chan struct{} // holds a token while somebody uses what follows, also while f runs, so that probes share one run
	at   time.Time     // end of the last run
	last error         // its result
}

// result returns the last result, or a new one when that is too old. The probe's going away does not end a run that others
// may wait for.
func (c *check) result(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-bounded.Done():
		return errTooLong // somebody else's run does not return; its result is on record when it does
	}
	if !c.at.IsZero() && time.Since(c.at) < checkTTL {
		return c.last
	}
	err := c.f(bounded)
	if err == nil && bounded.Err() != nil {
		err = errTooLong
	}
	c.logChange(err)
	c.at, c.last = time.Now(), err
	return err
}

var errTooLong = errors.New("took too long")

func (c *check) logChange(err error) {
	switch {
	case err != nil && c.last == nil:
		glog.Warningf("not ready: %s: %v", c.name, err)
	case err == nil && c.last != nil:
		glog.Infof("ready again: %s", c.name)
	}
}
