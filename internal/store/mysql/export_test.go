package mysql

import (
	"context"
	"database/sql/driver"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// Dialect is what Open uses.
func Dialect() *sqlbase.Dialect { return dialect() }

// NewConnector makes connections as Open does.
func NewConnector(dsn string) (driver.Connector, error) {
	cfg, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	inner, err := driversql.NewConnector(cfg)
	return connector{inner}, err
}

// NewTransactions makes connections for transactions as Open does.
func NewTransactions(dsn string) (driver.Connector, error) {
	c, err := NewConnector(dsn)
	return implicit{c}, err
}

// Classify says what an error means.
func Classify(err error) sqlbase.Fault { return classify(err) }

// Session is a connection as Open makes it, for looking at its settings.
func Session(ctx context.Context, dsn string) (driver.Conn, error) {
	c, err := NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(ctx)
}
