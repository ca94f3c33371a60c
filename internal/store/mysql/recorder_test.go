package mysql_test

import (
	"context"
	"database/sql/driver"
	"sync"
)

// recorder is a connector that remembers the statements sent while it is on.
type recorder struct {
	driver.Connector
	mu   sync.Mutex
	on   bool
	sent []sentStatement
}

type sentStatement struct {
	text string
	args []any
}

func (r *recorder) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := r.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return recordedConn{conn, r}, nil
}

// record returns the statements that do sends.
func (r *recorder) record(do func()) []sentStatement {
	r.mu.Lock()
	r.on, r.sent = true, nil
	r.mu.Unlock()
	do()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = false
	return r.sent
}

func (r *recorder) add(text string, args []driver.NamedValue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.on {
		return
	}
	s := sentStatement{text: text}
	for _, arg := range args {
		s.args = append(s.args, arg.Value)
	}
	r.sent = append(r.sent, s)
}

// recordedConn passes everything on.
type recordedConn struct {
	driver.Conn
	r *recorder
}

func (c recordedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.r.add(query, args)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c recordedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.r.add(query, args)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c recordedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c recordedConn) CheckNamedValue(v *driver.NamedValue) error {
	return c.Conn.(driver.NamedValueChecker).CheckNamedValue(v)
}
