package mysql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

const secret = "s3cr3t-Passw0rd"

// openStore opens a store that closes with the test.
func openStore(t *testing.T, cfg mysql.Config) *sqlbase.Store {
	t.Helper()
	s, err := mysql.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newDatabase returns a migrated database.
func newDatabase(t *testing.T) (dsn string) {
	t.Helper()
	dsn = testmysql.NewDatabase(t)
	if _, err := openStore(t, mysql.Config{DSN: dsn}).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// administer runs statements as the administrator of a database.
func administer(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, statement := range statements {
		// The context of a test has ended when its cleanup runs.
		if _, err := pool.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// withUser is a data source name for another user.
func withUser(t *testing.T, dsn, user, password string) string {
	t.Helper()
	cfg, err := driversql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Passwd = user, password
	return cfg.FormatDSN()
}

// newUser makes a user for the rest of the test.
func newUser(t *testing.T, dsn, user string) (userDSN string) {
	t.Helper()
	administer(t, dsn, "CREATE USER '"+user+"'@'%' IDENTIFIED BY '"+secret+"'")
	t.Cleanup(func() { administer(t, dsn, "DROP USER '"+user+"'@'%'") })
	return withUser(t, dsn, user, secret)
}

func TestDataSourceNameIsChecked(t *testing.T) {
	for name, tc := range map[string]struct{ dsn, says string }{
		"empty":            {"", "is empty"},
		"no form":          {"user:" + secret + "@nowhere", "the form is"},
		"no database":      {"user:" + secret + "@tcp(h:3306)/", "names no database"},
		"multi statements": {"user:" + secret + "@tcp(h:3306)/db?multiStatements=true", "multiStatements"},
		"all files":        {"user:" + secret + "@tcp(h:3306)/db?allowAllFiles=true", "allowAllFiles"},
		"bad parameter":    {"user:" + secret + "@tcp(h:3306)/db?timeout=soon", "the form is"},
	} {
		_, err := mysql.Open(t.Context(), mysql.Config{DSN: tc.dsn})
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "mysql_data_source_name") {
			t.Errorf("%s: %v, want an error that names the field and says %q", name, err, tc.says)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the password", name)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dsn := testmysql.NewDatabase(t)
	user := newUser(t, dsn, "stranger")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := driversql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	other.DBName = "does_not_exist"
	for name, tc := range map[string]struct{ dsn, says string }{
		"nobody listens":   {"user:" + secret + "@tcp(" + closed + ")/db", "check that the server runs"},
		"wrong password":   {withUser(t, dsn, "root", secret+"x"), "check user and password"},
		"unknown database": {other.FormatDSN(), "fsctl migrate"},
		"no rights":        {user, "grants.sql"},
	} {
		_, err := mysql.Open(t.Context(), mysql.Config{DSN: tc.dsn})
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "mysql_data_source_name") {
			t.Errorf("%s: %v, want an error that names the field and says %q", name, err, tc.says)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the password", name)
		}
	}
}

func TestSessionsAreSetUp(t *testing.T) {
	dsn := testmysql.NewDatabase(t) +
		"?parseTime=true&clientFoundRows=true&interpolateParams=false&time_zone=%27%2B05%3A00%27&sql_mode=%27%27&collation=utf8mb4_general_ci"
	c, err := mysql.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(c)
	defer pool.Close()
	isolation := "@@transaction_isolation"
	var version string
	if err := pool.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(version, "MariaDB") {
		isolation = "@@tx_isolation"
	}
	for variable, want := range map[string]string{
		isolation: "READ-COMMITTED", "@@time_zone": "+00:00", "@@collation_connection": "utf8mb4_bin",
	} {
		var got string
		if err := pool.QueryRow("SELECT " + variable).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", variable, got, err, want)
		}
	}
	var mode string
	if err := pool.QueryRow("SELECT @@sql_mode").Scan(&mode); err != nil || !strings.Contains(mode, "STRICT_ALL_TABLES") {
		t.Errorf("sql_mode is %q, %v; want it strict", mode, err)
	}
}

func TestClassify(t *testing.T) {
	number := func(n uint16) error { return &driversql.MySQLError{Number: n} }
	for name, tc := range map[string]struct {
		err  error
		want sqlbase.Fault
	}{
		"lock wait":      {number(1205), sqlbase.Fault{Retry: "lock_wait"}},
		"deadlock":       {number(1213), sqlbase.Fault{Retry: "deadlock"}},
		"too many":       {number(1637), sqlbase.Fault{Retry: "too_many"}},
		"wrapped":        {errors.Join(errors.New("x"), number(1213)), sqlbase.Fault{Retry: "deadlock"}},
		"TiDB conflict":  {number(9007), sqlbase.Fault{Retry: "conflict"}},
		"connections":    {number(1040), sqlbase.Fault{Unavailable: true, Text: "too many connections"}},
		"table full":     {number(1114), sqlbase.Fault{Unavailable: true, Text: "table full"}},
		"read-only":      {number(1290), sqlbase.Fault{Unavailable: true, Text: "the server is read-only"}},
		"duplicate":      {number(1062), sqlbase.Fault{Conflict: true}},
		"no table":       {number(1146), sqlbase.Fault{NoTable: true}},
		"syntax":         {number(1064), sqlbase.Fault{}},
		"stale":          {driver.ErrBadConn, sqlbase.Fault{Retry: "connection"}},
		"connection":     {driversql.ErrInvalidConn, sqlbase.Fault{Unavailable: true}},
		"dial":           {&net.OpError{Op: "dial", Err: errors.New("refused")}, sqlbase.Fault{Unavailable: true}},
		"deadline":       {context.DeadlineExceeded, sqlbase.Fault{}},
		"something else": {errors.New("else"), sqlbase.Fault{}},
	} {
		if got := mysql.Classify(tc.err); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestReadOnlyServer(t *testing.T) {
	dsn := newDatabase(t)
	user := newUser(t, dsn, "writer")
	administer(t, dsn, "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO 'writer'@'%'")
	s := openStore(t, mysql.Config{DSN: user})
	administer(t, dsn, "SET GLOBAL read_only = 1")
	t.Cleanup(func() { administer(t, dsn, "SET GLOBAL read_only = 0") })
	err := s.RecordServiceResults(t.Context(), []store.ServiceResult{{Service: "a"}})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("writing: %v, want ErrUnavailable that says why", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	administer(t, dsn, "SET GLOBAL read_only = 0")
	if err := s.RecordServiceResults(t.Context(), []store.ServiceResult{{Service: "a"}}); err != nil {
		t.Errorf("writing again: %v", err)
	}
}

func TestTooManyConnections(t *testing.T) {
	dsn := newDatabase(t)
	user := newUser(t, dsn, "lonely")
	administer(t, dsn, "GRANT SELECT ON *.* TO 'lonely'@'%' WITH MAX_USER_CONNECTIONS 1")
	first := openStore(t, mysql.Config{DSN: user})
	if err := first.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := mysql.Open(t.Context(), mysql.Config{DSN: user}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a second connection: %v, want ErrUnavailable", err)
	}
}
