package testmysql_test

import (
	"database/sql"
	"os"
	"testing"

	_ "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/internal/testmysql"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func TestDatabasesAreApart(t *testing.T) {
	first, second := open(t, testmysql.NewDatabase(t)), open(t, testmysql.NewDatabase(t))
	if _, err := first.Exec("CREATE TABLE here (n INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec("SELECT n FROM here"); err == nil {
		t.Error("a table of one database is in the other")
	}
}

func TestWhatWasCommittedSurvivesAKill(t *testing.T) {
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
	before := open(t, dsn)
	for _, statement := range []string{"CREATE TABLE here (n INT PRIMARY KEY)", "INSERT INTO here VALUES (42)"} {
		if _, err := before.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := before.Ping(); err == nil {
		t.Error("the server answers after it was killed")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := open(t, dsn).QueryRow("SELECT n FROM here").Scan(&n); err != nil || n != 42 {
		t.Errorf("after the restart: %d, %v; want 42", n, err)
	}
}
