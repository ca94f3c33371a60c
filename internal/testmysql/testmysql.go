// Package testmysql gives tests a real MariaDB: a server of their own in a temporary folder, durable as in production,
// that ends with the test binary.
//
// A package whose tests need a database has this TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }
//
// and asks for databases with NewDatabase. The server starts with the first of them. When it cannot be started the test
// fails: a machine without MariaDB must not look like one where all is well. Debian has it in package mariadb-server.
//
// With FARSPEAK_TEST_MYSQL_DSN set, databases are made on that server instead, which may be any that the store supports.
// Tests that kill the server start one of their own with Start.
package testmysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	driversql "github.com/go-sql-driver/mysql"
)

// ExternalDSN is the environment variable that names a server to use instead of starting one. Its user may create
// databases.
const ExternalDSN = "FARSPEAK_TEST_MYSQL_DSN"

// shared is the server of this test binary.
var shared struct {
	mu      sync.Mutex
	running bool // inside of Run
	server  *Server
	err     error
}

// Run runs the tests of a package and stops the server that they shared. It returns the exit code.
func Run(m *testing.M) int {
	shared.mu.Lock()
	shared.running = true
	shared.mu.Unlock()
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return code
	}
	if err := shared.server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "testmysql:", err)
		return max(code, 1)
	}
	return code
}

// NewDatabase returns the data source name of a new, empty database, which is dropped when the test ends.
func NewDatabase(t testing.TB) (dsn string) {
	t.Helper()
	base := os.Getenv(ExternalDSN)
	if base == "" {
		base = sharedServer(t).DSN("")
	}
	dsn, drop, err := createDatabase(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Error(err)
		}
	})
	return dsn
}

func sharedServer(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.running {
		t.Fatal("testmysql: the package needs func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start(Config{})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// createDatabase makes a database with a random name.
func createDatabase(ctx context.Context, base string) (dsn string, drop func() error, err error) {
	cfg, err := driversql.ParseDSN(base)
	if err != nil {
		return "", nil, fmt.Errorf("testmysql: %w", err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:16])
	if err := execute(ctx, base, "CREATE DATABASE "+name); err != nil {
		return "", nil, err
	}
	cfg.DBName = name
	drop = func() error { return execute(context.WithoutCancel(ctx), base, "DROP DATABASE "+name) }
	return cfg.FormatDSN(), drop, nil
}

func execute(ctx context.Context, dsn, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		return fmt.Errorf("testmysql: %w", err)
	}
	_, err = pool.ExecContext(ctx, statement)
	if err = errors.Join(err, pool.Close()); err != nil {
		return fmt.Errorf("testmysql: %s: %w", statement, err)
	}
	return nil
}
