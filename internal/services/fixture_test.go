package services_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var (
	clientA  = identity.ClientID{1, 2, 3, 4, 5, 6, 7, 8}
	clientB  = identity.ClientID{8, 7, 6, 5, 4, 3, 2, 1}
	errNever = errors.New("this never works")
	errFlaky = errors.New("not now")
)

// message returns message n of a client to a service, as the session code hands it in.
func message(client identity.ClientID, service string, n int) *fspb.Message {
	data, err := anypb.New(wrapperspb.String(fmt.Sprint("payload ", n)))
	if err != nil {
		panic(err)
	}
	source := []byte(fmt.Sprint(service, "-", n))
	return &fspb.Message{
		MessageId:       identity.MessageIDFor(client, "Agent", source).Bytes(),
		Source:          &fspb.Address{ClientId: client.Bytes(), ServiceName: "Agent"},
		SourceMessageId: source,
		Destination:     &fspb.Address{ServiceName: service},
		MessageType:     "Report",
		CreationTime:    timestamppb.New(time.Date(2026, 7, 1, 0, 0, n, 0, time.UTC)),
		Data:            data,
	}
}

// batchOf returns n messages of clientA to a service.
func batchOf(service string, n int) services.Batch {
	b := services.Batch{ClientID: clientA}
	for i := range n {
		b.Messages = append(b.Messages, message(clientA, service, i))
	}
	return b
}

// newManager makes a Manager on a store and closes it at the end of the test.
func newManager(t testing.TB, cfg services.Config) *services.Manager {
	t.Helper()
	if cfg.ServerID == "" {
		cfg.ServerID = "server-1"
	}
	m, err := services.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// running runs the backlog until the returned function is called, or the test ends.
func running(t testing.TB, m *services.Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// one is the Spec of a service made by the test.
func one(name string, s services.Service) []services.Spec {
	return []services.Spec{{Name: name, Service: s}}
}

// pass lets time pass in a bubble, and what it brings about happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
