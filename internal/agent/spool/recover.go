package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/agent/disk"
)

// Open opens the spool of a directory, and makes it if there is none. It fails if the directory cannot be used, and if
// another process has it open. Damaged files are no failure, see Recovery.
func Open(cfg Config) (*Spool, *Recovery, error) {
	cfg = cfg.withDefaults()
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := disk.TakeLock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{cfg: cfg, lock: lock, index: make(map[uint64]place)}
	found, err := s.recover(time.Now())
	if err != nil {
		lock.Release()
		return nil, nil, fmt.Errorf("spool %s: %w", cfg.Dir, err)
	}
	return s, found, nil
}

func (s *Spool) recover(now time.Time) (*Recovery, error) {
	files, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if seg, ok := segmentOf(filepath.Join(s.cfg.Dir, f.Name())); ok {
			s.segments = append(s.segments, seg)
		}
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	found := &Recovery{}
	damaged := s.load(found)
	for _, seg := range damaged {
		s.setAside(seg, now, found)
	}
	if len(damaged) == 0 {
		s.resume()
	}
	if err := s.dropDead(); err != nil {
		found.Problems = append(found.Problems, err)
	}
	found.Entries = s.entriesLocked() // nobody else knows s yet
	return found, nil
}

// load reads all segments, and returns those that are damaged.
func (s *Spool) load(found *Recovery) (damaged []*segment) {
	removed := make(map[uint64]bool)
	for _, seg := range s.segments {
		data, err := readSegment(seg.path)
		if err != nil {
			found.Problems = append(found.Problems, err)
		}
		seg.size = int64(len(data))
		bad := scan(data, seg.mark, func(offset int, r record) {
			found.LastID = max(found.LastID, r.id)
			if r.kind == kindRemoved {
				seg.removed = append(seg.removed, r.removed()...)
				return
			}
			s.index[r.id] = place{segment: seg, offset: int64(offset), size: len(r.body), tag: r.tag}
		})
		for _, id := range seg.removed {
			removed[id] = true
			found.LastID = max(found.LastID, id)
		}
		if bad || err != nil {
			damaged = append(damaged, seg)
		} else {
			seg.removed = nil
		}
	}
	for id, at := range s.index {
		if removed[id] {
			delete(s.index, id)
			continue
		}
		at.segment.live++
	}
	return damaged
}

func readSegment(path string) ([]byte, error) {
	data, err := disk.ReadLimited(path, maxSegmentRead)
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	return data, nil
}

// setAside copies what is valid in a damaged segment, and keeps the file under a name that tells when it was found. What
// cannot be dealt with stays as it is.
func (s *Spool) setAside(seg *segment, now time.Time, found *Recovery) {
	records, err := s.living(seg)
	if err == nil && len(records) > 0 {
		err = s.append(records, s.cfg.Sync != SyncNever)
	}
	if err == nil && len(seg.removed) > 0 {
		err = s.writeRemoved(seg.removed)
	}
	aside := seg.path + ".corrupt-" + now.UTC().Format("20060102T150405.000Z")
	if err == nil {
		err = os.Rename(seg.path, aside)
	}
	if err != nil {
		found.Problems = append(found.Problems, fmt.Errorf("damaged segment %s cannot be kept aside: %w", seg.path, err))
		return
	}
	s.segments = slices.DeleteFunc(s.segments, func(other *segment) bool { return other == seg })
	found.Aside = append(found.Aside, aside)
}

// resume goes on with the last segment if it has room.
func (s *Spool) resume() {
	if len(s.segments) == 0 {
		return
	}
	last := s.segments[len(s.segments)-1]
	if last.size >= segmentBytes {
		return
	}
	f, err := os.OpenFile(last.path, os.O_WRONLY, 0)
	if err == nil {
		s.active = f // otherwise the first write makes a new file, or tells why not
	}
}
