package sqlbase

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

// op observes one method: defer s.op("Name", &err)(). It also gives the error its name and, for faults of the database,
// its sentinel.
func (s *Store) op(name string, err *error) func() {
	started := time.Now()
	return func() {
		if *err != nil {
			*err = fmt.Errorf("store: %s: %w", name, s.explain(*err))
		}
		s.metrics.observe(name, time.Since(started), errored(*err))
	}
}

// explain wraps an error of the driver with the sentinel that callers act on.
func (s *Store) explain(err error) error {
	if isSentinel(err) || isContext(err) {
		return err
	}
	fault := s.dialect.Classify(err)
	switch {
	case fault.Retry != "" || fault.Unavailable:
		if fault.Text != "" {
			return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, fault.Text, err)
		}
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case fault.Conflict:
		return fmt.Errorf("%w: %w", store.ErrConflict, err)
	case fault.NoTable:
		return fmt.Errorf("%w: %w", store.ErrSchema, err)
	}
	return err
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func isSentinel(err error) bool {
	for _, sentinel := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrKeyMismatch, store.ErrUnknownClient, store.ErrQueueFull,
		store.ErrInvalid, store.ErrUnavailable, store.ErrSchema,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// errored says whether an outcome counts as an error of the operation; an absent row does not.
func errored(err error) bool {
	return err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict)
}
