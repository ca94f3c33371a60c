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
	// MaxOpenConns bounds the connections; 0 means DefaultMaxOpenConns.
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
	pool := sql.OpenDB(connector{inner})
	conns := cfg.MaxOpenConns
	if conns <= 0 {
		conns = DefaultMaxOpenConns
	}
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	pool.SetConnMaxLifetime(maxLifetime)
	pool.SetConnMaxIdleTime(maxIdle)
	s, err := sqlbase.New(sqlbase.Config{
		Dialect: dialect(), Writer: pool, Reader: pool,
		MaxPendingPerClient: cfg.MaxPendingPerClient, MaxFetchBytes: cfg.MaxFetchBytes, Registerer: cfg.Registerer,
	})
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("mysql_data_source_name: database %s at %s: %w%s", dsn.DBName, dsn.Addr, err, remedy(err)), s.Close())
	}
	return s, nil
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
