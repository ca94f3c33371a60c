package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// register makes a client.
func register(t *testing.T, s *sqlbase.Store) identity.ClientID {
	t.Helper()
	id := identity.NewClientID()
	outcomes, err := s.RecordContacts(t.Context(), []store.ContactUpdate{{ClientID: id, Key: id.Bytes()}})
	if err != nil || outcomes[0].Err != nil {
		t.Fatal(outcomes, err)
	}
	return id
}

// until waits for a condition that another connection brings about.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestLockWaitIsTriedAgain(t *testing.T) {
	dsn := newDatabase(t)
	reg := prometheus.NewRegistry()
	s := openStore(t, mysql.Config{DSN: dsn + "?innodb_lock_wait_timeout=1", Registerer: reg})
	id := register(t, s)
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	holder, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec("UPDATE clients SET blacklisted = 0, streaming_to = 'x' WHERE client_id = ?", id.Bytes()); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := s.BlacklistClient(t.Context(), id); err != nil {
			t.Errorf("BlacklistClient = %v, want it tried until the lock is free", err)
		}
	})
	until(t, "a retry", func() bool { n, _ := testutil.GatherAndCount(reg, "farspeak_store_retries_total"); return n > 0 })
	if err := holder.Commit(); err != nil {
		t.Fatal(err)
	}
	both.Wait()
	got, err := s.GetClients(t.Context(), []identity.ClientID{id})
	if err != nil || !got[id].Blacklisted {
		t.Errorf("client %+v, %v", got[id], err)
	}
}

// TestKilledServer kills the database while messages are inserted: each insert that was answered is there afterwards, and
// the store works again by itself.
func TestKilledServer(t *testing.T) {
	server, err := testmysql.Start(testmysql.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	dsn, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, mysql.Config{DSN: dsn})
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := register(t, s)
	answered := insertUntilItFails(t, s, id, func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.PendingCount(t.Context(), []identity.ClientID{id}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a server: %v, want ErrUnavailable", err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, m := range answered {
		if _, err := s.MessageStatus(t.Context(), m); err != nil {
			t.Errorf("message %v was answered and is lost: %v", m, err)
		}
	}
	t.Logf("%d inserts were answered before the kill, none is lost", len(answered))
}

// insertUntilItFails inserts from several goroutines, strikes once some were answered, and returns what was.
func insertUntilItFails(t *testing.T, s *sqlbase.Store, id identity.ClientID, strike func()) []identity.MessageID {
	t.Helper()
	var mu sync.Mutex
	var answered []identity.MessageID
	var once sync.Once
	var inserters sync.WaitGroup
	for range 4 {
		inserters.Go(func() {
			for {
				m := newMessage(id)
				_, err := s.InsertMessages(t.Context(), []*fspb.Message{m})
				if err != nil {
					if !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("insert: %v, want ErrUnavailable", err)
					}
					return
				}
				mu.Lock()
				answered = append(answered, identity.MessageID(m.MessageId))
				enough := len(answered) > 100
				mu.Unlock()
				if enough {
					go once.Do(strike) // ends before the inserters do: they end by it
				}
			}
		})
	}
	inserters.Wait()
	once.Do(func() { t.Error("inserts failed before the server was killed") })
	return answered
}
