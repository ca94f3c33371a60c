package sqlbase

import (
	"context"
	"errors"
	"math"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// newestDead reads by_time from its end.
	newestDead = `SELECT failed_us, size FROM dead_letters {index by_time} ORDER BY failed_us DESC LIMIT ?`

	// nthDead and deleteDeadUpTo read one range of by_time.
	nthDead = `SELECT failed_us FROM dead_letters {index by_time} WHERE failed_us <= ? ORDER BY failed_us
		LIMIT 1 OFFSET ?`
	deleteDeadUpTo = `{delete dead_letters by_time} WHERE failed_us <= ?`

	// deadBatches is how many batches go on one look at what is too much: the look reads up to as many rows as may stay.
	deadBatches = 20
)

// pruneDead deletes the oldest dead letters past their number and past their bytes, with those of the same moment.
func (s *Store) pruneDead(ctx context.Context, keep store.Retention, limit int) (deleted int64, err error) {
	upTo, err := s.deadExcess(ctx, keep)
	if err != nil || upTo == 0 {
		return 0, err
	}
	for range deadBatches {
		n, err := s.deleteOldestDead(ctx, upTo, limit)
		deleted += n
		if err != nil || n == 0 {
			return deleted, err
		}
	}
	return deleted, nil
}

// deadExcess returns the time of the newest dead letter that is too much; 0 when there is none.
func (s *Store) deadExcess(ctx context.Context, keep store.Retention) (upTo int64, err error) {
	number, bytes := unlessNone(keep.MaxDeadLetters), unlessNone(keep.MaxDeadLetterBytes)
	if number == math.MaxInt64 && bytes == math.MaxInt64 {
		return 0, nil
	}
	err = s.read().query(ctx, s.sql(newestDead), []any{min(number, math.MaxInt64-1) + 1}, func(r row) error {
		var failed, size int64
		err := r.Scan(&failed, &size)
		number, bytes = number-1, bytes-size
		if upTo == 0 && (number < 0 || bytes < 0) {
			upTo = failed
		}
		return err
	})
	return upTo, err
}

// unlessNone is a bound, where 0 stands for none.
func unlessNone(bound int64) int64 {
	if bound <= 0 {
		return math.MaxInt64
	}
	return bound
}

// deleteOldestDead deletes about limit of the dead letters up to a time.
func (s *Store) deleteOldestDead(ctx context.Context, upTo int64, limit int) (deleted int64, err error) {
	err = s.read().one(ctx, s.sql(nthDead), []any{upTo, limit - 1}, &upTo)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	err = s.writeAlone(ctx, func(t session) error {
		var err error
		deleted, err = t.exec(ctx, s.sql(deleteDeadUpTo), upTo)
		return err
	})
	s.metrics.evicted.Add(float64(deleted))
	return deleted, err
}
