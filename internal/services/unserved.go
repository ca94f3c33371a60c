package services

import (
	"context"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/store"
)

// unservedLimit is how many messages fail in one transaction.
const unservedLimit = 100

// unserved watches the services that are in the backlog and not configured here. Other servers may have them; what no
// server has would stay for ever, and whoever inserted it would never hear.
//
// The store knows whether anybody worked for such a service lately. It is asked only when this server could see the backlog
// for all that time: after an outage of the store, or of all servers, nobody has worked for anything.
type unserved struct {
	b     *backlog
	since map[string]time.Time // when each was first seen without a gap
}

// look takes the state of the backlog and fails what has waited for too long.
func (w *unserved) look(ctx context.Context, status []store.BacklogStatus) error {
	seen := make(map[string]time.Time)
	for _, s := range status {
		if w.b.m.units[s.Service] != nil {
			continue
		}
		first, known := w.since[s.Service]
		if !known {
			first = time.Now()
		}
		seen[s.Service] = first
		if after := w.b.m.cfg.UnservedAfter; time.Since(first) < after || s.Oldest < after {
			continue
		}
		if err := w.fail(ctx, s.Service); err != nil {
			return err
		}
	}
	w.since = seen
	return nil
}

// fail ends the messages to a service of which the store says that nobody works for it.
func (w *unserved) fail(ctx context.Context, service string) error {
	cfg := &w.b.m.cfg
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var failed int64
	defer func() {
		if failed > 0 {
			w.b.m.metrics.deadLetters.WithLabelValues(other).Add(float64(failed))
			glog.Warningf("backlog: %d messages failed to service %q, which no server took in %v", failed, cut(service, 100), cfg.UnservedAfter)
		}
	}()
	for {
		n, err := cfg.Store.FailUnserved(ctx, service, cfg.UnservedAfter, reason(unknownService(service)), unservedLimit)
		if failed += n; err != nil || n == 0 {
			return err
		}
	}
}
