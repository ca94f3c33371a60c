package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/agent/disk"
)

// batch is what is written together.
type batch struct {
	records []record
	bytes   int64

	// Guarded by Spool.commit.
	done bool
	err  error
}

// join puts a record into the batch that is written next.
func (s *Spool) join(r record) *batch {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.batch == nil {
		s.batch = &batch{}
	}
	s.batch.records = append(s.batch.records, r)
	s.batch.bytes += int64(r.size())
	return s.batch
}

func (s *Spool) takeBatch() *batch {
	s.joining.Lock()
	defer s.joining.Unlock()
	b := s.batch
	s.batch = nil
	return b
}

// write commits a batch. The caller holds commit.
func (s *Spool) write(b *batch) {
	b.done = true
	if s.closed {
		b.err = ErrClosed
		return
	}
	if b.err = s.makeRoom(b.bytes); b.err == nil {
		b.err = s.append(b.records, s.cfg.Sync == SyncAlways)
	}
}

// append writes records to the active segment and notes the messages among them.
func (s *Spool) append(records []record, synced bool) error {
	seg, err := s.writable()
	if err != nil {
		return err
	}
	var data []byte
	places := make([]place, len(records))
	for i, r := range records {
		places[i] = place{segment: seg, offset: seg.size + int64(len(data)), size: len(r.body), tag: r.tag}
		data = appendRecord(data, seg.mark, r)
	}
	if err := s.writeOut(seg, data, synced); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.size += int64(len(data))
	for i, r := range records {
		if r.kind != kindMessage {
			continue
		}
		if old, known := s.index[r.id]; known {
			old.segment.live--
		}
		s.index[r.id] = places[i]
		seg.live++
	}
	return nil
}

// writeOut adds data to the active segment, all or nothing.
func (s *Spool) writeOut(seg *segment, data []byte, synced bool) error {
	if _, err := s.active.WriteAt(data, seg.size); err != nil {
		if bad := s.active.Truncate(seg.size); bad != nil {
			err = errors.Join(err, bad, s.seal())
		}
		return fmt.Errorf("write to %s: %w", seg.path, err)
	}
	if synced {
		if err := s.active.Sync(); err != nil { // the system may have forgotten what it had not written: nothing goes here any more
			return fmt.Errorf("write to %s: %w", seg.path, errors.Join(err, s.active.Truncate(seg.size), s.seal()))
		}
	} else {
		s.flushLater()
	}
	return nil
}

// writable returns the active segment, a new one if need be.
func (s *Spool) writable() (*segment, error) {
	if s.active != nil {
		if last := s.segments[len(s.segments)-1]; last.size < segmentBytes {
			return last, nil
		}
		if err := s.seal(); err != nil {
			return nil, err
		}
	}
	number := uint64(1)
	if len(s.segments) > 0 {
		number = s.segments[len(s.segments)-1].number + 1
	}
	seg := newSegment(s.cfg.Dir, number)
	file, err := seg.create()
	if err != nil {
		return nil, fmt.Errorf("new segment: %w", err)
	}
	if s.cfg.Sync != SyncNever {
		if err := disk.SyncDir(s.cfg.Dir); err != nil {
			return nil, errors.Join(fmt.Errorf("new segment: %w", err), file.Close(), os.Remove(seg.path))
		}
	}
	s.active = file
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = append(s.segments, seg)
	return seg, nil
}

// seal ends the active segment.
func (s *Spool) seal() error {
	if s.active == nil {
		return nil
	}
	var err error
	if s.dirty && s.cfg.Sync != SyncNever {
		err = s.active.Sync()
	}
	err = errors.Join(err, s.active.Close())
	s.active, s.dirty = nil, false
	if err != nil {
		return fmt.Errorf("end segment: %w", err)
	}
	return nil
}

// flushLater has the disk get within the interval what the system has.
func (s *Spool) flushLater() {
	s.dirty = true
	if s.cfg.Sync != SyncInterval || s.flush != nil {
		return
	}
	s.flush = time.AfterFunc(s.cfg.Interval, func() {
		s.commit.Lock()
		defer s.commit.Unlock()
		s.flush = nil
		if s.active == nil || !s.dirty || s.closed {
			return
		}
		s.dirty = false
		if s.active.Sync() != nil {
			_ = s.seal() // the next write, in a new file, tells its sender what is wrong
		}
	})
}

// writeRemoved notes that messages are gone. That need not wait for the disk: without it they come once more.
func (s *Spool) writeRemoved(ids []uint64) error {
	var records []record
	for some := range slices.Chunk(ids, maxBody/8) {
		records = append(records, removedRecord(some))
	}
	return s.append(records, false)
}
