package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
)

// reset makes an empty spool of one in which nothing lives.
func (s *Spool) reset() error {
	var err error
	if s.active != nil {
		err = s.empty()
	}
	return errors.Join(err, s.dropDead())
}

// empty cuts the active segment, which may go on then without a trace of what it held.
func (s *Spool) empty() error {
	if err := s.active.Truncate(0); err != nil {
		return errors.Join(fmt.Errorf("empty segment: %w", err), s.seal())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[len(s.segments)-1].size = 0
	return nil
}

// dropDead removes segments of which nothing lives: the oldest ones only, since a segment says of older ones what was
// removed from them.
func (s *Spool) dropDead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.segments)
	if s.active != nil {
		last--
	}
	n := 0
	var err error
	for ; n < last && s.segments[n].live == 0 && err == nil; n++ {
		if err = os.Remove(s.segments[n].path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err != nil {
			break
		}
	}
	s.segments = slices.Delete(s.segments, 0, n)
	if err != nil {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}

// makeRoom sees to it that n more bytes fit. One segment's room is kept for copying.
func (s *Spool) makeRoom(n int64) error {
	for range len(s.segments) + 1 {
		if s.Stats().Bytes+n <= s.cfg.MaxBytes-segmentBytes {
			return nil
		}
		if err := s.compactOldest(); err != nil {
			return err
		}
	}
	return ErrFull
}

// compactOldest copies what lives in the oldest segment to the end, and removes it once the copies are safe.
func (s *Spool) compactOldest() error {
	if len(s.segments) == 0 {
		return ErrFull
	}
	if len(s.segments) == 1 && s.active != nil {
		if err := s.seal(); err != nil {
			return err
		}
	}
	records, err := s.living(s.segments[0])
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if len(records) > 0 {
		if err := s.append(records, s.cfg.Sync != SyncNever); err != nil {
			return fmt.Errorf("compact: %w", err)
		}
	}
	return s.dropDead()
}

// living reads the messages that live in a segment, in order.
func (s *Spool) living(seg *segment) ([]record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []record
	for id, at := range s.index {
		if at.segment != seg {
			continue
		}
		body, err := s.readLocked(id)
		if err != nil {
			return nil, err
		}
		records = append(records, record{kind: kindMessage, tag: at.tag, id: id, body: body})
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.id, b.id) })
	return records, nil
}
