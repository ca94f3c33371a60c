// Package spool keeps messages on disk until they are not needed any more, in the order of their numbers.
//
// A spool is a directory of segments: files of checksummed records to which is only appended. A record is a message, or a
// list of messages that were removed. Segments of which nothing lives go, oldest first; when that does not make enough room
// the oldest one is copied to the end, as far as it lives.
//
// # Invariants
//
//   - A message for which Append returned nil is among those of the next Open, until Remove, whatever ends the process. With
//     SyncAlways that holds for a loss of power too. A removed message may come back after a loss of power, and only then.
//   - The segments take at most Config.MaxBytes; damaged files that are kept come on top.
//   - A file in which anything is damaged is kept under another name; what is valid in it stays in the spool.
//   - A record of a message cannot be mistaken for one of the spool, whatever it contains: records begin with a mark that is
//     in the file's name and nowhere that a sender could read.
//
// # Who owns what
//
// The mutex commit is held by whoever changes files; mu guards the index, and is held for no longer than the reading of one
// message. Those who append at the same time share one write, and one wait for the disk.
package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/agent/disk"
)

// Sync says when a message is safe.
type Sync int

// When a message counts as appended.
const (
	SyncAlways   Sync = iota // when the disk has it
	SyncInterval             // when the system has it; the disk has it within Config.Interval
	SyncNever                // when the system has it
)

const (
	// DefaultMaxBytes and MinMaxBytes bound Config.MaxBytes: what it is if not given, and at least.
	DefaultMaxBytes = 256 << 20
	MinMaxBytes     = 32 << 20
	// DefaultInterval is Config.Interval if not given.
	DefaultInterval = time.Second
	// MaxMessage is the largest message that a spool takes, in bytes.
	MaxMessage = 4 << 20
	// segmentBytes is the size from which on a segment is not continued.
	segmentBytes = 4 << 20
)

// Errors on which callers act.
var (
	ErrFull   = errors.New("the spool is full")
	ErrClosed = errors.New("the spool is closed")
	// ErrUnreadable says that a message is not on disk any more as it was written.
	ErrUnreadable = errors.New("the message cannot be read back")
)

// Config says where a spool is and what it may take.
type Config struct {
	// Dir is the directory; it is made when its parent exists. One process at a time may have it open.
	Dir string
	// MaxBytes is what the files may take. 0: DefaultMaxBytes; less than MinMaxBytes counts as that.
	MaxBytes int64
	Sync     Sync
	// Interval belongs to SyncInterval. 0: DefaultInterval.
	Interval time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	c.MaxBytes = max(c.MaxBytes, MinMaxBytes)
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	return c
}

// Entry describes a message in the spool.
type Entry struct {
	ID   uint64
	Tag  byte // of the one who appended it
	Size int  // in bytes
}

// Recovery is what Open found.
type Recovery struct {
	Entries []Entry  // in the order of their IDs
	LastID  uint64   // highest one that the spool knows of, also of removed messages; new ones have to be above it
	Aside   []string // paths of damaged files, as they are called now
	// Problems are damages that could not be dealt with; the spool is usable all the same.
	Problems []error
}

// Spool is an open spool. Its methods may be called from any goroutine.
type Spool struct {
	cfg  Config
	lock *disk.Lock

	joining sync.Mutex
	batch   *batch // that the next commit takes; nil: none

	commit sync.Mutex // held while files change
	active *os.File   // the last segment, open for writing; nil: the next write makes a new one
	dirty  bool       // something is written and not on disk
	flush  *time.Timer
	closed bool

	mu       sync.Mutex
	segments []*segment // the active one is the last
	index    map[uint64]place
}

// place is where a message's record lies.
type place struct {
	segment *segment
	offset  int64
	size    int // of the message
	tag     byte
}

// Append keeps a message until Remove. IDs are not used twice, not even those of removed messages, see Recovery.LastID. It returns when the message is safe, see Config.Sync, or
// with an error, after which the message is not in the spool.
func (s *Spool) Append(id uint64, tag byte, message []byte) error {
	if len(message) > MaxMessage {
		return fmt.Errorf("message of %d bytes: the spool takes %d", len(message), MaxMessage)
	}
	b := s.join(record{kind: kindMessage, tag: tag, id: id, body: message})
	s.commit.Lock()
	defer s.commit.Unlock()
	if !b.done { // nobody committed it while this one waited for its turn
		s.write(s.takeBatch())
	}
	return b.err
}

// Read returns a message.
func (s *Spool) Read(id uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readLocked(id)
}

func (s *Spool) readLocked(id uint64) ([]byte, error) {
	at, known := s.index[id]
	if !known {
		return nil, fmt.Errorf("%w: number %d is unknown", ErrUnreadable, id)
	}
	r, err := at.segment.read(at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if r.kind != kindMessage || r.id != id {
		return nil, fmt.Errorf("%w: another record lies in its place", ErrUnreadable)
	}
	return r.body, nil
}

// Remove forgets messages; unknown ones do not matter. After an error they are forgotten in this process, and may come back
// in the next.
func (s *Spool) Remove(ids ...uint64) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	gone, empty := s.forget(ids)
	switch {
	case s.closed:
		return ErrClosed
	case len(gone) == 0:
		return nil
	case empty:
		return s.reset()
	}
	return errors.Join(s.dropDead(), s.writeRemoved(gone))
}

// forget takes messages out of the index.
func (s *Spool) forget(ids []uint64) (gone []uint64, empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if at, known := s.index[id]; known {
			at.segment.live--
			delete(s.index, id)
			gone = append(gone, id)
		}
	}
	return gone, len(s.index) == 0
}

// Stats says what a spool holds.
type Stats struct {
	Messages int
	Bytes    int64 // of files
	MaxBytes int64
}

// Stats returns what the spool holds now.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Messages: len(s.index), Bytes: s.bytesLocked(), MaxBytes: s.cfg.MaxBytes}
}

func (s *Spool) bytesLocked() (n int64) {
	for _, seg := range s.segments {
		n += seg.size
	}
	return n
}

// Close writes out what is not on disk yet and lets another process open the spool. It may be called more than once.
func (s *Spool) Close() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.flush != nil {
		s.flush.Stop()
	}
	err := s.seal()
	s.lock.Release()
	return err
}

// entriesLocked lists what the index has.
func (s *Spool) entriesLocked() []Entry {
	entries := make([]Entry, 0, len(s.index))
	for id, at := range s.index {
		entries = append(entries, Entry{ID: id, Tag: at.tag, Size: at.size})
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return entries
}
