package sqlbase

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/fstest"

	"github.com/farspeak/farspeak/internal/identity"
)

// poisoned is a connector of connections that panic.
type poisoned struct{}

func (poisoned) Connect(context.Context) (driver.Conn, error) { panic("poison") }
func (poisoned) Driver() driver.Driver                        { return nil }

// A panic in the look at a message's client reaches the caller, who contains it: in a goroutine of its own it would end the
// process (G-01).
func TestPanicOfALookIsTheCallers(t *testing.T) {
	pool := sql.OpenDB(poisoned{})
	s, err := New(Config{
		Dialect: &Dialect{Now: "0", Migrations: fstest.MapFS{}, Classify: func(error) Fault { return Fault{} }},
		Writer:  pool, Reader: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := s.lookUpTarget(t.Context(), &pending{client: identity.NewClientID()})
	defer func() {
		if cause := recover(); cause != "poison" {
			t.Errorf("recovered %v, want the panic of the look", cause)
		}
	}()
	l.wait()
	t.Error("a panic of the look was lost")
}

// Numbers rise in this process, also when the store's clock is set back.
func TestSequenceRises(t *testing.T) {
	var q sequence
	rows := []*pending{{}, {}, {}}
	q.number(rows, 1000)
	if rows[0].seq != 1000 || rows[2].seq != 1002 {
		t.Errorf("numbers %d to %d at 1000", rows[0].seq, rows[2].seq)
	}
	if got := q.next(); got != 1003 {
		t.Errorf("the next number is %d, want 1003", got)
	}
	q.passed(2000)
	q.passed(1500) // of an insert that took longer
	q.number(rows, 1200)
	if rows[0].seq != 2001 || q.next() != 2004 {
		t.Errorf("number %d after 2000, then %d", rows[0].seq, q.next())
	}
}

// A message whose number the database does not tell cannot be put in order by the server, and is left for it to read.
func TestNoHandoverWithoutANumber(t *testing.T) {
	to := target{streamingTo: "s:1", contact: 1}
	p := &pending{client: identity.NewClientID(), seq: 5}
	if h := p.handover(to); h == nil || h.Message.Seq != 5 {
		t.Errorf("handed over %+v, want number 5", h)
	}
	p.seq = 0
	if h := p.handover(to); h != nil {
		t.Errorf("handed over %+v", h)
	}
}
