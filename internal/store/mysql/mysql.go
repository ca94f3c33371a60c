// Package mysql opens the store on MySQL or anything that speaks its protocol and dialect: MySQL 8, MariaDB 10.11, a
// Galera cluster, Vitess, TiDB.
//
// Sessions run in READ COMMITTED, strict, in UTC, and send statements with their arguments in one packet. The schema is
// never altered by Open: daemons call CheckSchema, the operator's command calls Migrate.
package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	driversql "github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// Defaults.
const (
	// DefaultMaxOpenConns keeps many daemons below the 151 connections that a server takes by default.
	DefaultMaxOpenConns = 32
	// dialTimeout, readTimeout and writeTimeout apply when the data source name has none. Reading includes waiting for
	// row locks, which a server gives up after 50 s by default.
	dialTimeout  = 10 * time.Second
	readTimeout  = 75 * time.Second
	writeTimeout = 30 * time.Second
	// maxLifetime and maxIdle bound the age of a connection, so that a pool follows a failover or a load balancer.
	maxLifetime = 5 * time.Minute
	maxIdle     = time.Minute
	// maxIdleTransactions bounds the idle connections for transactions. When the server restarts, each of them fails one
	// try of a transaction: they are fewer than the tries that one has.
	maxIdleTransactions = 6
	// unionParts bounds the SELECTs of one statement.
	unionParts = 100
	// prepareAbove is the size of a row in bytes from which it is sent unescaped.
	prepareAbove = 1 << 20
	// maxPacket is the largest packet in bytes that is sent.
	maxPacket = 16 << 20
)

// Config says which database, and the bounds of the store.
type Config struct {
	// DSN is mysql_data_source_name: user:password@tcp(host:3306)/database?parameters.
	DSN string
	// MaxOpenConns bounds the connections: half of it those for transactions, half the others, at least one each. 0 means
	// DefaultMaxOpenConns.
	MaxOpenConns int
	// MaxPendingPerClient, MaxFetchBytes and Registerer are as in sqlbase.Config.
	MaxPendingPerClient uint64
	MaxFetchBytes       int
	Registerer          prometheus.Registerer
}

// Open connects to the database and returns the store on it. It does not look at the schema.
func Open(ctx context.Context, cfg Config) (*sqlbase.Store, error) {
	dsn, err := parse(cfg.DSN)
	if err != nil {
		return nil, err
	}
	inner, err := driversql.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("mysql_data_source_name: %w", err)
	}
	conns := cfg.MaxOpenConns
	if conns <= 0 {
		conns = DefaultMaxOpenConns
	}
	pool := openPool(connector{inner}, conns-conns/2, conns)
	transactions := openPool(implicit{connector{inner}}, max(1, conns/2), maxIdleTransactions)
	s, err := sqlbase.New(sqlbase.Config{
		Dialect: dialect(), Writer: pool, Reader: pool, Transactions: transactions,
		MaxPendingPerClient: cfg.MaxPendingPerClient, MaxFetchBytes: cfg.MaxFetchBytes, Registerer: cfg.Registerer,
	})
	if err != nil {
		return nil, errors.Join(err, pool.Close(), transactions.Close())
	}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("mysql_data_source_name: database %s at %s: %w%s", dsn.DBName, dsn.Addr, err, remedy(err)), s.Close())
	}
	return s, nil
}

func openPool(c driver.Connector, open, idle int) *sql.DB {
	pool := sql.OpenDB(c)
	pool.SetMaxOpenConns(open)
	pool.SetMaxIdleConns(idle)
	pool.SetConnMaxLifetime(maxLifetime)
	pool.SetConnMaxIdleTime(maxIdle)
	return pool
}

func dialect() *sqlbase.Dialect {
	return &sqlbase.Dialect{
		Name:         "mysql",
		Goose:        goose.DialectMySQL,
		Migrations:   db.MySQL(),
		Now:          "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
		Hints:        true,
		UnionParts:   unionParts,
		PrepareAbove: prepareAbove,
		Classify:     classify,
	}
}

// connector gives new sessions their isolation level. The name of that variable differs between servers; the statement
// does not.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set isolation level: %w", err), conn.Close())
	}
	return conn, nil
}
