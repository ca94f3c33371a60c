package measure

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	_ "github.com/go-sql-driver/mysql" // the driver that the name means
)

// Statements are a database server's own counters, by their names in lower case.
type Statements map[string]int64

// questions is the counter of all statements that clients sent.
const questions = "questions"

// counted are the counters that are read: all statements, some kinds of them, and what they cost inside.
var counted = []string{
	questions, "com_select", "com_insert", "com_insert_select", "com_update", "com_delete", "com_replace", "com_begin", "com_commit",
	"com_rollback", "com_set_option", "innodb_data_fsyncs", "innodb_os_log_fsyncs", "handler_read_rnd_next", "handler_read_next",
	"innodb_rows_read", "created_tmp_tables", "sort_rows", "innodb_row_lock_waits", "innodb_deadlocks",
}

// Database reads the counters of a MySQL or MariaDB server.
type Database struct {
	pool *sql.DB
	own  int64 // statements of this reader so far
}

// OpenDatabase connects to the server that a data source name tells.
func OpenDatabase(ctx context.Context, dsn string) (*Database, error) {
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	pool.SetMaxOpenConns(1) // whose statements can be counted
	if err := pool.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), pool.Close())
	}
	return &Database{pool: pool}, nil
}

// Close ends the connection.
func (d *Database) Close() error { return d.pool.Close() }

// Read returns the counters now, without the statements of earlier calls.
func (d *Database) Read(ctx context.Context) (Statements, error) {
	d.own++
	rows, err := d.pool.QueryContext(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('"+strings.Join(counted, "', '")+"')")
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer rows.Close()
	s := make(Statements)
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			s[strings.ToLower(name)] = n
		}
	}
	s[questions] -= d.own
	return s, rows.Err()
}

// Since is what was counted after an earlier reading.
func (s Statements) Since(earlier Statements) Statements {
	d := make(Statements, len(s))
	for name, n := range s {
		if n -= earlier[name]; n != 0 {
			d[name] = n
		}
	}
	return d
}

// All is how many statements there were.
func (s Statements) All() int64 { return s[questions] }
