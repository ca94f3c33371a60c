package mysql_test

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store/mysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A message that is being completed at the moment is not brought back by a repeat of its insert, which looks for its
// result before that is committed, and gets the lock of its row afterwards.
func TestRepeatOfAMessageThatIsBeingCompleted(t *testing.T) {
	dsn := newDatabase(t)
	s := openStore(t, mysql.Config{DSN: dsn})
	id := register(t, s)
	m := newMessage(id)
	insert := func() (duplicate bool) {
		outcomes, err := s.InsertMessages(t.Context(), []*fspb.Message{m})
		if err != nil || outcomes[0].Err != nil {
			t.Error(outcomes, err)
			return false
		}
		return outcomes[0].Duplicate
	}
	if insert() {
		t.Error("the first insert is a duplicate")
	}
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	completing, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"INSERT INTO message_results (message_id, processed_us, failed, reason) VALUES (?, 1, 0, '')",
		"DELETE FROM client_messages WHERE message_id = ?",
	} {
		if _, err := completing.Exec(statement, m.MessageId); err != nil {
			t.Fatal(err)
		}
	}
	var repeat sync.WaitGroup
	repeat.Go(func() {
		if !insert() {
			t.Error("the repeat is no duplicate")
		}
	})
	until(t, "the repeat to wait for the row", func() bool {
		var name string
		var waiting int
		err := pool.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'").Scan(&name, &waiting)
		return err == nil && waiting > 0
	})
	if err := completing.Commit(); err != nil {
		t.Fatal(err)
	}
	repeat.Wait()
	if n, err := s.PendingCount(t.Context(), []identity.ClientID{id}); n != 0 || err != nil {
		t.Errorf("%d messages pending, %v: the repeat brought a completed one back", n, err)
	}
}
