package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/agent/disk"
	"github.com/farspeak/farspeak/internal/agent/spool"
)

func open(t *testing.T, cfg spool.Config) (*spool.Spool, *spool.Recovery) {
	t.Helper()
	s, found, err := spool.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, found
}

func reopen(t *testing.T, s *spool.Spool, cfg spool.Config) (*spool.Spool, *spool.Recovery) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, cfg)
}

func add(t *testing.T, s *spool.Spool, ids ...uint64) {
	t.Helper()
	for _, id := range ids {
		if err := s.Append(id, byte(id), body(id)); err != nil {
			t.Fatal(err)
		}
	}
}

func body(id uint64) []byte { return fmt.Appendf(nil, "message %d", id) }

func ids(found *spool.Recovery) []uint64 {
	var out []uint64
	for _, e := range found.Entries {
		out = append(out, e.ID)
	}
	return out
}

func segments(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestMessagesSurvive(t *testing.T) {
	for _, sync := range []spool.Sync{spool.SyncAlways, spool.SyncInterval, spool.SyncNever} {
		cfg := spool.Config{Dir: filepath.Join(t.TempDir(), "spool"), Sync: sync}
		s, found := open(t, cfg)
		if len(found.Entries) != 0 {
			t.Errorf("a new spool has %v", found.Entries)
		}
		add(t, s, 3, 1, 2, 9)
		if err := s.Remove(2, 77); err != nil {
			t.Fatal(err)
		}
		s, found = reopen(t, s, cfg)
		if got := ids(found); !slices.Equal(got, []uint64{1, 3, 9}) || found.LastID != 9 || len(found.Aside) > 0 || found.Entries[1].Tag != 3 {
			t.Errorf("found %v", found)
		}
		for _, id := range ids(found) {
			if got, err := s.Read(id); err != nil || !bytes.Equal(got, body(id)) {
				t.Errorf("message %d is %q, %v", id, got, err)
			}
		}
		if _, err := s.Read(2); !errors.Is(err, spool.ErrUnreadable) {
			t.Errorf("a removed message: %v", err)
		}
		add(t, s, 10)
		if err := s.Remove(1, 3, 9, 10); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats(); got.Messages != 0 || got.Bytes != 0 {
			t.Errorf("an empty spool is %+v", got)
		}
		if _, found = reopen(t, s, cfg); len(found.Entries) != 0 {
			t.Errorf("found %v after all was removed", found.Entries)
		}
	}
}

// The number of a removed message is not given again while the disk knows of its removal.
func TestLastIDKnowsRemovedMessages(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	s, _ := open(t, cfg)
	add(t, s, 1, 2)
	if err := s.Remove(2); err != nil {
		t.Fatal(err)
	}
	s, found := reopen(t, s, cfg)
	if found.LastID != 2 {
		t.Errorf("the last number is %d", found.LastID)
	}
	add(t, s, found.LastID+1)
	if _, found = reopen(t, s, cfg); len(found.Entries) != 2 {
		t.Errorf("found %v", found.Entries)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	s, _ := open(t, cfg)
	if _, _, err := spool.Open(cfg); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	reopen(t, s, cfg)
	if err := s.Append(1, 0, nil); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("append to a closed spool: %v", err)
	}
}

// What is removed makes room, whatever stays behind in between.
func TestBound(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir(), MaxBytes: 1, Sync: spool.SyncNever} // so the least
	s, _ := open(t, cfg)
	message := make([]byte, 1<<20)
	var kept []uint64
	for id := uint64(1); id <= 150; id++ {
		if err := s.Append(id, 0, message); err != nil {
			t.Fatalf("message %d: %v", id, err)
		}
		if id%10 == 1 {
			kept = append(kept, id)
		} else if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats().Bytes; got > spool.MinMaxBytes {
			t.Fatalf("%d bytes after message %d", got, id)
		}
	}
	id := uint64(1000)
	for ; s.Append(id, 0, message) == nil; id++ {
		kept = append(kept, id)
	}
	if err := s.Append(id, 0, message); !errors.Is(err, spool.ErrFull) || len(kept) < 24 {
		t.Errorf("with %d messages: %v", len(kept), err)
	}
	if err := s.Remove(kept[:5]...); err != nil {
		t.Fatal(err)
	}
	add(t, s, id)
	_, found := reopen(t, s, cfg)
	if got := ids(found); !slices.Equal(got, append(slices.Clone(kept[5:]), id)) {
		t.Errorf("kept %v", got)
	}
}

func TestAppendAndRemoveSideBySide(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir(), Sync: spool.SyncNever}
	s, _ := open(t, cfg)
	var wg sync.WaitGroup
	for w := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(200) {
				id := w*1000 + i
				if err := s.Append(id, 0, body(id)); err != nil {
					t.Error(err)
				}
				if _, err := s.Read(id); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := s.Remove(id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if _, found := reopen(t, s, cfg); len(found.Entries) != 800 {
		t.Errorf("%d messages", len(found.Entries))
	}
}

// damage opens a spool on a segment of three messages that was changed.
func damage(t *testing.T, change func([]byte) []byte) (*spool.Spool, *spool.Recovery, spool.Config) {
	t.Helper()
	cfg := spool.Config{Dir: t.TempDir()}
	s, _ := open(t, cfg)
	add(t, s, 1, 2, 3)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := segments(t, cfg.Dir, "*.seg")[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = change(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, found := open(t, cfg)
	if len(found.Aside) == 1 {
		if kept, err := os.ReadFile(found.Aside[0]); err != nil || !bytes.Equal(kept, data) {
			t.Errorf("what is kept aside has %d bytes, %v", len(kept), err)
		}
	}
	return s, found, cfg
}

func TestDamagedSegmentIsKeptAside(t *testing.T) {
	second := bytes.Index
	for name, test := range map[string]struct {
		change func([]byte) []byte
		want   []uint64
		aside  int
	}{
		"none":     {func(b []byte) []byte { return b }, []uint64{2, 3}, 0},
		"garbage":  {func(b []byte) []byte { return append(b, "garbage"...) }, []uint64{2, 3}, 1},
		"zeros":    {func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, []uint64{2, 3}, 1},
		"flipped":  {func(b []byte) []byte { b[second(b, body(2))] ^= 1; return b }, []uint64{3}, 1},
		"torn":     {func(b []byte) []byte { return b[:second(b, body(3))+4] }, []uint64{1, 2}, 1},
		"beheaded": {func(b []byte) []byte { return b[5:] }, []uint64{2, 3}, 1},
		"nothing":  {func(b []byte) []byte { return []byte("x") }, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, found, cfg := damage(t, test.change)
			if got := ids(found); !slices.Equal(got, test.want) || len(found.Aside) != test.aside || len(found.Problems) > 0 {
				t.Fatalf("found %v, want %v", found, test.want)
			}
			add(t, s, 50)
			_, found = reopen(t, s, cfg)
			if got := ids(found); !slices.Equal(got, append(test.want, 50)) || len(found.Aside) > 0 {
				t.Errorf("the next time: %v", found)
			}
		})
	}
}

// Of any damage the spool keeps what it can, and never makes up a message.
func TestRandomDamage(t *testing.T) {
	for range 200 {
		_, found, _ := damage(t, func(b []byte) []byte {
			for range 1 + rand.IntN(3) {
				b[rand.IntN(len(b))] ^= byte(1 + rand.IntN(255))
			}
			return b
		})
		for _, e := range found.Entries {
			if e.ID < 1 || e.ID > 3 || e.Size != len(body(e.ID)) {
				t.Fatalf("found %v", found.Entries)
			}
		}
		if len(found.Aside) != 1 {
			t.Fatalf("%d files are kept aside", len(found.Aside))
		}
	}
}

// A disk without room, or that turned read-only, costs the message at hand and nothing else.
func TestNoPlaceToWrite(t *testing.T) {
	cfg := spool.Config{Dir: filepath.Join(t.TempDir(), "spool")}
	s, _ := open(t, cfg)
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(1, 0, body(1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("append: %v", err)
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, s, 2)
	if got, err := s.Read(2); err != nil || !bytes.Equal(got, body(2)) {
		t.Errorf("read: %q, %v", got, err)
	}
	for _, dir := range []string{filepath.Join(cfg.Dir, "no", "parent"), "/dev/null"} {
		if _, _, err := spool.Open(spool.Config{Dir: dir}); err == nil {
			t.Errorf("%s is opened", dir)
		}
	}
	if err := s.Append(3, 0, make([]byte, spool.MaxMessage+1)); err == nil {
		t.Error("a message that is too large is taken")
	}
}
