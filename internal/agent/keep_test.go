package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/spool"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// spooled returns an outbox on a spool, and a function that ends it as kill would, as far as that can be seen here.
func spooled(t *testing.T, cfg spool.Config) (*outbox, func()) {
	t.Helper()
	k := openKeeper(cfg)
	if k == nil {
		t.Fatal("the spool does not open")
	}
	t.Cleanup(k.close)
	return newOutbox(noReports{}, k), k.close
}

// What a service handed over is sent after the next start, in order, and what the server has is not (G-11).
func TestOutboxSurvives(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	o, kill := spooled(t, cfg)
	fill(t, o, fspb.Message_LOW, 1, 2)
	fill(t, o, fspb.Message_HIGH, 3, 4)
	fill(t, o, fspb.Message_MEDIUM, 5)
	b := o.take(identity.ClientID{}, 1) // 3
	b.accept()
	o.take(identity.ClientID{}, 1) // 4 is under way when it ends
	kill()

	o, _ = spooled(t, cfg)
	b = takeAll(o)
	if got, want := contents(t, b), []byte{4, 5, 1, 2}; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	fill(t, o, fspb.Message_HIGH, 6)
	b.giveBack()
	if got, want := contents(t, takeAll(o)), []byte{4, 6, 5, 1, 2}; !bytes.Equal(got, want) {
		t.Errorf("after it was given back: %v, want %v", got, want)
	}
}

// A new message never gets the number of one whose removal is still on disk: it would be gone with it.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	o, kill := spooled(t, cfg)
	fill(t, o, fspb.Message_LOW, 1)
	fill(t, o, fspb.Message_HIGH, 2)
	o.take(identity.ClientID{}, 1).accept() // 2, the last one
	kill()
	o, kill = spooled(t, cfg)
	fill(t, o, fspb.Message_MEDIUM, 3)
	kill()
	o, _ = spooled(t, cfg)
	if got, want := contents(t, takeAll(o)), []byte{3, 1}; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBackgroundSurvives(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	o, kill := spooled(t, cfg)
	m := numbered(1, fspb.Message_LOW, 0)
	m.Background = true
	if err := o.send(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	kill()
	o, _ = spooled(t, cfg)
	if b := takeAll(o); b == nil || b.foreground() {
		t.Errorf("batch is %v", b)
	}
}

// Past the bounds of memory messages are on disk only, past those of the disk services are held back, and those of a higher
// priority later.
func TestSpoolBounds(t *testing.T) {
	o, _ := spooled(t, spool.Config{Dir: t.TempDir(), MaxBytes: spool.MinMaxBytes, Sync: spool.SyncNever})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	count := func(p fspb.Message_Priority) (n int) {
		for ; ; n++ {
			if err := o.send(ctx, numbered(byte(n), p, 1<<20), nil); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return n
			}
		}
	}
	low, medium, high := count(fspb.Message_LOW), count(fspb.Message_MEDIUM), count(fspb.Message_HIGH)
	if low != 20 || medium != 2 || high != 2 {
		t.Errorf("%d, %d and %d messages of 1 MiB fit", low, medium, high)
	}
	if got := o.class[classLow].resident; got > maxResidentBytes+2<<20 {
		t.Errorf("%d bytes in memory", got)
	}
	sent := make(chan error, 1)
	go func() { sent <- o.send(t.Context(), numbered(9, fspb.Message_LOW, 0), nil) }() // waited for below
	total := 0
	for b := takeAll(o); b != nil; b = takeAll(o) {
		total += len(contents(t, b))
		b.accept()
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if b := takeAll(o); b != nil {
		total += len(contents(t, b))
	}
	if total != low+medium+high+1 || o.class[classLow].resident > 1000 {
		t.Errorf("%d messages came out, %d bytes stay", total, o.class[classLow].resident)
	}
}

// When the bound falls, what goes is of the lowest priority, and counted.
func TestLowerBoundDropsTheLowestFirst(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir(), MaxBytes: 64 << 20, Sync: spool.SyncNever}
	o, kill := spooled(t, cfg)
	for n := range byte(15) {
		if err := errors.Join(o.send(t.Context(), numbered(100+n, fspb.Message_HIGH, 1<<20), nil),
			o.send(t.Context(), numbered(n, fspb.Message_LOW, 1<<20), nil)); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	cfg.MaxBytes = spool.MinMaxBytes
	o, _ = spooled(t, cfg)
	s := o.stats()
	if s.Class[classHigh].messages != 15 || s.Class[classLow].messages > 12 || int(s.Dropped[classLow])+s.Class[classLow].messages != 15 ||
		s.Dropped[classHigh] != 0 {
		t.Errorf("stats are %+v", s)
	}
}

// A disk that fails costs durability and nothing else, and is used again when it works.
func TestFailingDisk(t *testing.T) {
	cfg := spool.Config{Dir: filepath.Join(t.TempDir(), "spool")}
	o, _ := spooled(t, cfg)
	now := time.Now()
	o.now = func() time.Time { return now }
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	fill(t, o, fspb.Message_MEDIUM, 1, 2)
	if s := o.stats(); s.Kept.messages != 0 || s.Messages != 2 || o.keeper.health() == "" {
		t.Errorf("stats are %+v", s)
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	now = now.Add(diskPause)
	fill(t, o, fspb.Message_MEDIUM, 3)
	if s := o.stats(); s.Kept.messages != 1 || s.Messages != 3 || o.keeper.health() != "" {
		t.Errorf("stats are %+v", s)
	}
	b := takeAll(o)
	if got := contents(t, b); !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
	b.accept()
	if o.kept != (load{}) || o.class[classMedium].loose != (load{}) || o.class[classMedium].resident != 0 {
		t.Errorf("something is still held: %+v, %+v", o.kept, o.class[classMedium])
	}
}

// A message that is gone from the disk holds up no other.
func TestLostFile(t *testing.T) {
	cfg := spool.Config{Dir: t.TempDir()}
	o, kill := spooled(t, cfg)
	fill(t, o, fspb.Message_LOW, 1)
	kill()
	o, _ = spooled(t, cfg)
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if b := takeAll(o); b != nil || o.stats().Dropped[classLow] != 1 || o.stats().Messages != 0 {
		t.Errorf("batch %v, stats %+v", b, o.stats())
	}
	o.close()
	<-o.idle
}

// Without a usable directory the agent works from memory.
func TestNoSpool(t *testing.T) {
	if k := openKeeper(spool.Config{Dir: "/dev/null/spool"}); k != nil {
		t.Error("a spool in /dev/null")
	}
	o := newOutbox(noReports{}, openKeeper(spool.Config{}))
	fill(t, o, fspb.Message_LOW, 1)
	if got := contents(t, takeAll(o)); !bytes.Equal(got, []byte{1}) {
		t.Errorf("got %v", got)
	}
}

// A report is not kept, and counted when there is no room for it.
func TestReportsAreDroppedAndCounted(t *testing.T) {
	o, _ := spooled(t, spool.Config{Dir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range byte(maxClassMessages) {
		if err := o.report(ctx, numbered(n, fspb.Message_LOW, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.report(ctx, numbered(1, fspb.Message_LOW, 0)); err == nil {
		t.Error("no error")
	}
	if s := o.stats(); s.Dropped[classLow] != 1 || s.Kept.messages != 0 {
		t.Errorf("stats are %+v", s)
	}
}
