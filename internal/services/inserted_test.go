package services_test

import (
	"errors"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// inserted is message n to a service as fs-admin stores it.
func inserted(service string, n int) store.BacklogMessage {
	m := message(identity.ClientID{}, service, n)
	m.Source = &fspb.Address{ServiceName: "Backend"}
	return store.BacklogMessage{ID: idOf(m), Service: service, Message: m}
}

// insert stores messages as fs-admin does.
func insert(t *testing.T, st services.Store, messages ...store.BacklogMessage) {
	t.Helper()
	errs, err := st.AddBacklog(t.Context(), messages, 0, 0)
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

func TestRepeatedInsertionIsHandedOverOnce(t *testing.T) {
	st := openDB(t, 1)[0]
	s := newFakeService(nil)
	m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogPoll: 20 * time.Millisecond})
	running(t, m)
	fromClient := store.BacklogMessage{Service: "S", Message: message(clientA, "S", 3)}
	fromClient.ID = idOf(fromClient.Message)
	insert(t, st, inserted("S", 1), fromClient)
	eventually(t, "both taken", func() bool { return s.takenOnce(t) == 2 && depth(t, st) == 0 })

	insert(t, st, inserted("S", 1), inserted("S", 2)) // the connector had no answer to the first
	eventually(t, "the next taken", func() bool { return s.takenOnce(t) == 3 && depth(t, st) == 0 })
	status, err := st.MessageStatus(t.Context(), inserted("S", 1).ID)
	if err != nil || status.Result == nil || status.Result.Failed {
		t.Errorf("status %+v, %v; want a success", status, err)
	}
	if _, err := st.MessageStatus(t.Context(), fromClient.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("status of a client's message: %v; want none, results are not kept", err)
	}
}
