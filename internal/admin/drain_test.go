package admin_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store/storetest"
)

// switchedStore answers pings only while it is on.
type switchedStore struct {
	*failingStore
	off atomic.Bool
}

func (s *switchedStore) Ping(context.Context) error {
	if s.off.Load() {
		return errors.New("off")
	}
	return nil
}

// awaitHealth reads a watch until it says what is wanted.
func awaitHealth(t *testing.T, watch healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for {
		answer, err := watch.Recv()
		if err != nil {
			t.Fatalf("waiting for %v: %v", want, err)
		}
		if answer.Status == want {
			return
		}
	}
}

// Health follows the store, and says first that the server is about to end.
func TestHealth(t *testing.T) {
	s := &switchedStore{failingStore: &failingStore{}}
	f := serve(t, s, nil)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	health := healthpb.NewHealthClient(f.conn)
	for _, service := range []string{"fleetspeak.server.Admin", "farspeak.control.Control", ""} {
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
		f.must(err)
		awaitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
	}
	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	f.must(err)
	awaitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)
	s.off.Store(true)
	awaitHealth(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	s.off.Store(false)
	awaitHealth(t, watch, healthpb.HealthCheckResponse_SERVING)

	_, err = health.Check(ctx, &healthpb.HealthCheckRequest{Service: "nothing"})
	wantCode(t, err, codes.NotFound)

	// Watches that would go on for ever do not hold up the end.
	began := time.Now()
	f.awaitStop()
	if took := time.Since(began); took > admin.DefaultDrainTimeout/2 {
		t.Errorf("the stop took %v", took)
	}
}

// What was taken before a stop is committed and answered.
func TestStopFinishesCalls(t *testing.T) {
	gate := newGatedStore(storetest.NewSQLite(t))
	f := serve(t, gate, nil)
	f.real = gate.realStore
	id := f.register("")
	m := message(id)
	inserted := make(chan error, 1)
	go func() {
		_, err := f.admin.InsertMessage(t.Context(), m)
		inserted <- err
	}()
	receive(t, gate.entered)
	f.stop()
	close(gate.proceed)
	if err := receive(t, inserted); err != nil {
		t.Errorf("the call under way: %v", err)
	}
	f.awaitStop()
	if count, err := gate.realStore.PendingCount(t.Context(), []identity.ClientID{id}); err != nil || count != 1 {
		t.Errorf("%d messages stored, %v", count, err)
	}
}

// A call that does not end is cut off, and does not keep the process.
func TestStopCutsCallsOff(t *testing.T) {
	gate := newGatedStore(storetest.NewSQLite(t))
	f := serve(t, gate, func(c *admin.Config) { c.DrainTimeout = 50 * time.Millisecond })
	stuck := make(chan error, 1)
	go func() {
		_, err := f.admin.InsertMessage(t.Context(), message(identity.NewClientID()))
		stuck <- err
	}()
	receive(t, gate.entered)
	f.stop()
	err := receive(t, stuck)
	if err == nil {
		t.Error("a call that was cut off succeeded")
	}
	close(gate.proceed)
	f.awaitStop()
}
