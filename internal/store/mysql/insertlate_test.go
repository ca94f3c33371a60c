package mysql_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A session that begins while a message for its client is being inserted may have read its queue before the message was in it.
// So the insert tells of the session, alone and among others.
func TestSessionThatBeginsDuringAnInsert(t *testing.T) {
	for _, others := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d others", others), func(t *testing.T) {
			dsn := newDatabase(t)
			s := openStore(t, mysql.Config{DSN: dsn})
			id := register(t, s)
			list := []*fspb.Message{newMessage(id)}
			for range others {
				list = append(list, newMessage(register(t, s)))
			}
			if _, err := s.InsertMessages(t.Context(), []*fspb.Message{newMessage(id)}); err != nil { // counts the queue
				t.Fatal(err)
			}
			letGo := holdUp(t, dsn, list[0])
			type answer struct {
				outcomes []store.InsertOutcome
				err      error
			}
			answered := make(chan answer, 1)
			go func() {
				outcomes, err := s.InsertMessages(t.Context(), list)
				answered <- answer{outcomes, err}
			}()
			until(t, "the insert to wait", func() bool { return rowLockWaits(t, dsn) > 0 })
			_, err := s.RecordContacts(t.Context(), []store.ContactUpdate{{ClientID: id, Key: id.Bytes(), StreamingTo: "late:1"}})
			if err != nil {
				t.Fatal(err)
			}
			letGo()
			got := <-answered
			if got.err != nil || got.outcomes[0].Err != nil || got.outcomes[0].StreamingTo != "late:1" {
				t.Errorf("outcomes %+v, %v; want the session that began", got.outcomes, got.err)
			}
			for _, o := range got.outcomes[1:] {
				if o != (store.InsertOutcome{}) {
					t.Errorf("outcome %+v for a client without a session", o)
				}
			}
		})
	}
}

// holdUp has inserts of a message wait until letGo.
func holdUp(t *testing.T, dsn string, m *fspb.Message) (letGo func()) {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	same, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := identity.NewClientID()
	_, err = same.Exec(`INSERT INTO client_messages (client_id, seq, message_id, due_us, attempts, kind, service, message_type,
		creation_seconds, creation_nanos, size, header, data) VALUES (?, 1, ?, 1, 0, 0, 's', 't', 1, 0, 1, 'h', 'd')`, client[:], m.MessageId)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := same.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

func rowLockWaits(t *testing.T, dsn string) (waiting int) {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var name string
	if err := pool.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'").Scan(&name, &waiting); err != nil {
		t.Fatal(err)
	}
	return waiting
}
