package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
)

// transactions is one connection on which transactions begin by themselves, to a table t with a number n.
func transactions(t *testing.T) *sql.DB {
	t.Helper()
	dsn := newDatabase(t)
	administer(t, dsn, "CREATE TABLE t (n INT NOT NULL PRIMARY KEY) ENGINE=InnoDB")
	c, err := mysql.NewTransactions(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(c)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	pool.SetMaxOpenConns(1)
	return pool
}

// transact inserts a number and ends the transaction by end.
func transact(t *testing.T, pool *sql.DB, n int, end func(*sql.Tx) error) {
	t.Helper()
	tx, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (?)", n); err != nil {
		t.Fatal(err)
	}
	if err := end(tx); err != nil {
		t.Fatal(err)
	}
}

// ask returns the number that a statement answers in a transaction of its own.
func ask(t *testing.T, pool *sql.DB, statement string, args ...any) (n int) {
	t.Helper()
	tx, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(statement, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A transaction is one though nothing begins it: what is rolled back is gone, what is committed stays.
func TestTransactionsBeginByThemselves(t *testing.T) {
	pool := transactions(t)
	transact(t, pool, 1, (*sql.Tx).Commit)
	transact(t, pool, 2, (*sql.Tx).Rollback)
	transact(t, pool, 3, (*sql.Tx).Commit)
	if got := ask(t, pool, "SELECT SUM(n) FROM t"); got != 4 {
		t.Errorf("the sum of what is stored is %d, want 4", got)
	}
	const status = "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = ?"
	if begun, committed := ask(t, pool, status, "COM_BEGIN"), ask(t, pool, status, "COM_COMMIT"); begun != 0 || committed < 3 {
		t.Errorf("%d statements began a transaction and %d committed one, want none and at least 3", begun, committed)
	}
}

// A transaction whose context ends is undone, and the next one begins anew.
func TestCancelledTransactionIsUndone(t *testing.T) {
	pool := transactions(t)
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := tx.Commit(); err == nil {
		t.Error("a cancelled transaction was committed")
	}
	transact(t, pool, 2, (*sql.Tx).Commit)
	if got := ask(t, pool, "SELECT SUM(n) FROM t"); got != 2 {
		t.Errorf("the sum of what is stored is %d, want 2", got)
	}
	if _, err := pool.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err == nil {
		t.Error("a transaction with options that nothing heeds was begun")
	}
}

// Connections that the database has closed meanwhile cost a transaction a try, and its caller nothing.
func TestClosedConnectionsAreReplaced(t *testing.T) {
	dsn := newDatabase(t)
	s := openStore(t, mysql.Config{DSN: dsn})
	id := register(t, s)
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	killAll(t, pool)
	if _, err := s.BlacklistClient(t.Context(), id); err != nil {
		t.Errorf("writing over connections that were closed: %v", err)
	}
	clients, err := s.GetClients(t.Context(), []identity.ClientID{id})
	if errors.Is(err, store.ErrUnavailable) || clients[id] == nil || !clients[id].Blacklisted {
		t.Errorf("client %+v, %v", clients[id], err)
	}
}

// killAll closes the other connections to the database of a pool.
func killAll(t *testing.T, pool *sql.DB) {
	t.Helper()
	rows, err := pool.QueryContext(t.Context(), "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()")
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if len(ids) == 0 {
		t.Fatal("the store has no connection to be closed")
	}
	for _, id := range ids {
		if _, err := pool.ExecContext(t.Context(), "KILL "+strconv.FormatInt(id, 10)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the connections to be closed", func() bool {
		var n int
		err := pool.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()").Scan(&n)
		return err == nil && n == 0
	})
}
