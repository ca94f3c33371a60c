package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// implicit gives connections for transactions only: each begins with its first statement, so that there is no START
// TRANSACTION to wait for. A single statement on such a connection would be a transaction, too, and wait for its COMMIT.
type implicit struct{ driver.Connector }

func (i implicit) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := i.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(connection)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's connection is a %T, which lacks methods", conn), conn.Close())
	}
	if _, err := full.ExecContext(ctx, "SET SESSION autocommit = 0", nil); err != nil {
		return nil, errors.Join(fmt.Errorf("begin transactions by themselves: %w", err), conn.Close())
	}
	return &implicitConn{connection: full}, nil
}

// connection is what a connection of the driver can do.
type connection interface {
	driver.Conn
	driver.Pinger
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext
	driver.NamedValueChecker
	driver.SessionResetter
	driver.Validator
}

// implicitConn is a connection on which transactions begin by themselves.
type implicitConn struct {
	connection
	open bool // a transaction has not ended
}

// BeginTx sends nothing.
func (c *implicitConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts != (driver.TxOptions{}) {
		return nil, errors.New("transactions here have the isolation level of the connection")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.open = true
	return implicitTx{c}, nil
}

// IsValid keeps a connection whose transaction did not end from being used for the next one.
func (c *implicitConn) IsValid() bool { return !c.open && c.connection.IsValid() }

// implicitTx is the transaction of an implicitConn.
type implicitTx struct{ conn *implicitConn }

func (t implicitTx) Commit() error   { return t.end("COMMIT") }
func (t implicitTx) Rollback() error { return t.end("ROLLBACK") }

// end has no context: the timeouts of the connection bound it.
func (t implicitTx) end(statement string) error {
	_, err := t.conn.ExecContext(context.Background(), statement, nil)
	t.conn.open = err != nil
	return err
}
