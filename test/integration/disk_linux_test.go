package integration_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	smallDisk = "8m"
	largeDisk = "256m"
	// fillText is a payload that fills the small disk in some tens of messages.
	fillText = 256 << 10
)

// disk is a file system in memory with a size that can be changed.
type disk string

// mountDisk takes root.
func mountDisk(t *testing.T, size string) disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("this test mounts a small file system, for which it has to run as root with the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk(path)
}

func (d disk) remount(t *testing.T, flags uintptr, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", string(d), "tmpfs", syscall.MS_REMOUNT|flags, "size="+size); err != nil {
		t.Fatal(err)
	}
}

// When the disk is full, what cannot be stored is refused and not acknowledged; what was accepted before is kept. With
// space again, everything goes on without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	small := mountDisk(t, smallDisk)
	i := install(t, shape{site: func(s *harness.Site) {
		s.Components.SqliteDatabasePath = filepath.Join(string(small), "farspeak.db")
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
		s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(3 * time.Second)
	}})
	admin := i.admins[0].Client(t)
	config := agentConfig(t, i.servers[0].Target())
	config.Answer = nil
	agent := startAgents(t, 1, config)[0]
	away := newKey(t) // known, and not connected: what is for it stays in the store
	session, _, err := i.servers[0].Target().Open(t.Context(), away, false, emptyContact(), nil)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()

	accepted, refusal := i.fill(t, admin, away)
	t.Logf("%d messages of %d KiB were accepted, then: %v", accepted, fillText>>10, refusal)
	if code := status.Code(refusal); code != codes.ResourceExhausted && code != codes.Unavailable {
		t.Errorf("a full disk is reported as %v", refusal)
	}
	// The backend is away: messages of clients would have to be stored, which is impossible.
	i.backend.Stop()
	for n := range 200 {
		agent.Send(harness.ToBackend(t, fmt.Sprintf("%d %s", n, strings.Repeat("x", 64<<10))))
	}
	harness.Eventually(t, 2*promptly, "refusal of client messages", func() error {
		if agent.Stats().Failures == 0 {
			return errors.New("the session goes on")
		}
		return nil
	})
	t.Logf("of 200 client messages %d were acknowledged with a full disk and no backend", len(agent.AcknowledgedIDs()))

	small.remount(t, 0, largeDisk)
	i.backend.Resume()
	harness.Eventually(t, crashTail, "client messages", func() error {
		if n := len(agent.AcknowledgedIDs()); n < 200 {
			return fmt.Errorf("%d are acknowledged: %+v", n, agent.Stats())
		}
		if missing := i.missingAtBackend([]*peer.Agent{agent}); missing > 0 {
			return fmt.Errorf("%d acknowledged ones did not arrive", missing)
		}
		return nil
	})
	harness.Eventually(t, promptly, "InsertMessage", func() error {
		_, err := admin.InsertMessage(t.Context(), harness.ToClient(t, away.ID(), "echo", "after"))
		return err
	})
	awayConfig := config
	awayConfig.Key = away
	returned := startAgents(t, 1, awayConfig)[0]
	harness.Eventually(t, crashTail, "accepted messages", func() error {
		if n := returned.Stats().Received; n < accepted+1 {
			return fmt.Errorf("%d of %d arrived", n, accepted+1)
		}
		return nil
	})
	checkProtocol(t, []*peer.Agent{agent, returned})
}

// fill inserts messages for a client until one is refused.
func (i *installation) fill(t *testing.T, admin *harness.AdminClient, client *peer.Key) (accepted int, refusal error) {
	t.Helper()
	text := strings.Repeat("x", fillText)
	for range 1000 {
		if _, err := admin.InsertMessage(t.Context(), harness.ToClient(t, client.ID(), "echo", text)); err != nil {
			return accepted, err
		}
		accepted++
	}
	t.Fatal("the disk does not fill up")
	return 0, nil
}

// A daemon whose database is read-only says so and ends.
func TestReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	place := mountDisk(t, largeDisk)
	path := filepath.Join(string(place), "farspeak.db")
	i := install(t, shape{site: func(s *harness.Site) { s.Components.SqliteDatabasePath = path }})
	i.servers[0].Terminate()
	i.admins[0].Terminate()
	place.remount(t, syscall.MS_RDONLY, largeDisk)
	for _, daemon := range []*harness.Process{i.LaunchServer("read-only-server", nil).Process, i.LaunchAdmin("read-only-admin", nil).Process} {
		if err := daemon.WaitEnd(promptly); err == nil {
			t.Errorf("%s ended without an error", daemon.Name)
		}
		if log := daemon.Log(); !strings.Contains(log, "read-only") && !strings.Contains(log, "readonly") || !strings.Contains(log, path) {
			t.Errorf("%s does not say that %s is read-only:\n%s", daemon.Name, path, log)
		}
	}
}
