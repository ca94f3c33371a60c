// Package storetest holds the contract of the store as a suite that every implementation passes, and gives other tests
// stores of their own.
//
// A package that uses NewMySQL has the TestMain of package testmysql.
package storetest

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
	"github.com/farspeak/farspeak/internal/testmysql"
)

// Options are bounds of a store that a test sets.
type Options struct {
	MaxPendingPerClient uint64
	MaxFetchBytes       int
	Registerer          prometheus.Registerer
}

// Database is an empty, migrated database, which may be opened more than once.
type Database struct {
	// Name is "mysql" or "sqlite".
	Name string
	open func(t testing.TB, o Options) *sqlbase.Store
	raw  *sql.DB
}

// Open opens the database once more, as another daemon does. The store is closed when the test ends.
func (d *Database) Open(t testing.TB, o Options) *sqlbase.Store {
	t.Helper()
	s := d.open(t, o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Exec changes the database past the store, to age rows and the like.
func (d *Database) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := d.raw.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Count returns the result of a query for one number.
func (d *Database) Count(t testing.TB, query string, args ...any) (n int64) {
	t.Helper()
	if err := d.raw.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// NewSQLite returns an empty store in a file of its own.
func NewSQLite(t testing.TB) *sqlbase.Store { return SQLiteDatabase(t).Open(t, Options{}) }

// NewMySQL returns an empty store in a database of its own on a real MariaDB.
func NewMySQL(t testing.TB) *sqlbase.Store { return MySQLDatabase(t).Open(t, Options{}) }

// SQLiteDatabase returns a database in a file of its own.
func SQLiteDatabase(t testing.TB) *Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "farspeak.db")
	open := func(t testing.TB, o Options) *sqlbase.Store {
		t.Helper()
		s, err := sqlite.Open(t.Context(), sqlite.Config{
			Path: path, MaxPendingPerClient: o.MaxPendingPerClient, MaxFetchBytes: o.MaxFetchBytes, Registerer: o.Registerer,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := open(t, Options{}).Close(); err != nil { // makes the file
		t.Fatal(err)
	}
	return &Database{Name: "sqlite", open: open, raw: openRaw(t, "sqlite", "file:"+path+"?_busy_timeout=10000")}
}

// MySQLDatabase returns a database of its own on a real MariaDB.
func MySQLDatabase(t testing.TB) *Database {
	t.Helper()
	dsn := testmysql.NewDatabase(t)
	open := func(t testing.TB, o Options) *sqlbase.Store {
		t.Helper()
		s, err := mysql.Open(t.Context(), mysql.Config{
			DSN: dsn, MaxPendingPerClient: o.MaxPendingPerClient, MaxFetchBytes: o.MaxFetchBytes, Registerer: o.Registerer,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(t, Options{})
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return &Database{Name: "mysql", open: open, raw: openRaw(t, "mysql", dsn)}
}

func openRaw(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	raw, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := raw.Close(); err != nil {
			t.Error(err)
		}
	})
	return raw
}
