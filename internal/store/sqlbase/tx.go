package sqlbase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// maxAttempts bounds how often a transaction runs, retryDelay and maxRetryDelay the pauses between: full jitter,
	// doubling, about a second in total.
	maxAttempts   = 8
	retryDelay    = 4 * time.Millisecond
	maxRetryDelay = 500 * time.Millisecond
)

// errRaced ends a transaction whose rows another server inserted meanwhile; it runs again and finds them.
var errRaced = errors.New("another server was faster")

// querier is a transaction, or a pool where each statement is a transaction of its own.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// session runs statements.
type session struct {
	s     *Store
	q     querier
	again bool // no transaction is around it: a query without an answer may run again
}

// row is one row of an answer, to be scanned.
type row interface{ Scan(dest ...any) error }

// read returns a session for reading outside of transactions.
func (s *Store) read() session { return session{s: s, q: s.cfg.Reader, again: true} }

// write runs do in a transaction, again when the database says that it may. So do starts from nothing each time: it
// returns what it found by assigning, never by appending to what an earlier run left.
func (s *Store) write(ctx context.Context, do func(session) error) error {
	return s.retry(ctx, func() error {
		tx, err := s.cfg.Transactions.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		s.metrics.transactions.Inc()
		if err := do(session{s: s, q: tx}); err != nil {
			return rollback(tx, err)
		}
		return tx.Commit()
	})
}

// writeAlone is write for a do of just one statement, which needs no transaction around it.
func (s *Store) writeAlone(ctx context.Context, do func(session) error) error {
	return s.retry(ctx, func() error { return do(session{s: s, q: s.cfg.Writer}) })
}

func rollback(tx *sql.Tx, err error) error {
	// A connection that fails here was lost, and the transaction with it; err says why already.
	_ = tx.Rollback()
	return err
}

func (s *Store) retry(ctx context.Context, run func() error) error {
	delay := retryDelay
	for attempt := 1; ; attempt++ {
		err := run()
		if err == nil {
			return nil
		}
		reason := s.retryReason(err)
		if reason == "" || ctx.Err() != nil {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("%w: given up after %d attempts: %w", store.ErrUnavailable, attempt, err)
		}
		s.metrics.retries.WithLabelValues(reason).Inc()
		if err := pause(ctx, rand.N(delay)); err != nil {
			return err
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

func (s *Store) retryReason(err error) string {
	if errors.Is(err, errRaced) {
		return "raced"
	}
	return s.dialect.Classify(err).Retry
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec runs an expanded statement and returns how many rows it changed.
func (t session) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	t.s.metrics.statements.Inc()
	result, err := t.q.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// number runs an expanded INSERT of at most one row. It says whether that was inserted, and returns its number, which {number}
// and {returning} mark: 0 from a database that does not tell.
func (t session) number(ctx context.Context, statement string, args ...any) (number int64, inserted bool, err error) {
	if !t.s.dialect.Hints {
		err = t.query(ctx, statement, args, func(r row) error {
			inserted = true
			return r.Scan(&number)
		})
		return number, inserted, err
	}
	t.s.metrics.statements.Inc()
	result, err := t.q.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, false, err
	}
	rows, err := result.RowsAffected()
	if rows == 0 || err != nil {
		return 0, false, err
	}
	number, err = result.LastInsertId()
	return number, true, err
}

// query runs an expanded statement and calls each for every row of the answer.
func (t session) query(ctx context.Context, statement string, args []any, each func(row) error) error {
	if !t.again {
		return t.queryOnce(ctx, statement, args, each)
	}
	var answered error // of a query that had an answer, which each has seen
	err := t.s.retry(ctx, func() error {
		rows := 0
		err := t.queryOnce(ctx, statement, args, func(r row) error {
			rows++
			return each(r)
		})
		if rows > 0 {
			answered = err
			return nil
		}
		return err
	})
	if err == nil {
		err = answered
	}
	return err
}

func (t session) queryOnce(ctx context.Context, statement string, args []any, each func(row) error) error {
	t.s.metrics.statements.Inc()
	rows, err := t.q.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// insert runs a multi-row INSERT: template with {rows}, each row in the form of rowForm. It takes as many statements as
// the bounds ask for, and returns how many rows were inserted or changed.
func (t session) insert(ctx context.Context, template, rowForm string, rows [][]any) (int64, error) {
	head, tail, _ := strings.Cut(t.s.sql(template), "{rows}")
	rowForm = t.s.sql(rowForm)
	var changed int64
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && n < maxRows && (n == 0 || size+rowSize(rows[n]) <= maxStatement) {
			size += rowSize(rows[n])
			n++
		}
		statement := head + strings.Repeat(rowForm+",", n-1) + rowForm + tail
		got, err := t.insertChunk(ctx, statement, rows[:n], size)
		if err != nil {
			return 0, err
		}
		changed += got
		rows = rows[n:]
	}
	return changed, nil
}

func (t session) insertChunk(ctx context.Context, statement string, rows [][]any, size int) (int64, error) {
	args := make([]any, 0, len(rows)*len(rows[0]))
	for _, r := range rows {
		args = append(args, r...)
	}
	if above := t.s.dialect.PrepareAbove; above == 0 || size <= above || len(rows) > 1 {
		return t.exec(ctx, statement, args...)
	}
	prepared, err := t.q.PrepareContext(ctx, statement)
	if err != nil {
		return 0, err
	}
	defer prepared.Close()
	t.s.metrics.statements.Inc()
	result, err := prepared.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// rowSize estimates the bytes of a row in a statement.
func rowSize(args []any) int {
	size := 0
	for _, arg := range args {
		switch v := arg.(type) {
		case []byte:
			size += len(v)
		case string:
			size += len(v)
		default:
			size += 8
		}
	}
	return size
}

// now reads the store's clock.
func (t session) now(ctx context.Context) (now int64, err error) {
	err = t.query(ctx, t.s.sql("SELECT {now}"), nil, func(r row) error { return r.Scan(&now) })
	return now, err
}
