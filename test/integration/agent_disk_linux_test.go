package integration_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	"github.com/farspeak/farspeak/test/harness"
)

// fillUp leaves no room on a disk.
func (d disk) fillUp(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(string(d), "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// A disk that is full, at the start or while the agent runs, or that is read-only, costs an agent the durability of what it
// sends and nothing else, and the log says so.
func TestAgentOnABadDisk(t *testing.T) {
	t.Parallel()
	small := mountDisk(t, smallDisk)
	i := install(t, shape{})
	client := i.StartClient("fs-client", harness.ClientOptions{
		Servers: []string{i.servers[0].ClientAddress},
		Adjust: func(config *genericpb.Config) {
			config.Farspeak = &settingspb.Agent{SpoolDirectory: filepath.Join(string(small), "spool")}
		},
	})
	admin := i.admins[0].Client(t)
	awaitClients(t, admin, []*harness.Client{client})
	echo := func(text string) {
		t.Helper()
		admin.MustInsert(t, client.EchoRequest(text))
		harness.Eventually(t, promptly, "answer "+text[:16], func() error {
			if i.backend.EchoReply(client.ID(), text) == nil {
				return errors.New("it has not come")
			}
			return nil
		})
	}
	said := func(text string) {
		t.Helper()
		harness.Eventually(t, promptly, "line in the log", func() error {
			if !strings.Contains(client.Log(), text) {
				return fmt.Errorf("nothing about %q", text)
			}
			return nil
		})
	}
	long := strings.Repeat("x", 1<<20) // more than what is left in the file that is written
	echo("with a good disk " + long)
	small.fillUp(t)
	echo("with a full disk " + long)
	said("messages are in memory only until the spool works again")
	client.Kill()
	client.Restart()
	said("no space left")
	echo("after a start with a full disk")
	client.Kill()
	small.remount(t, syscall.MS_RDONLY, smallDisk)
	client.Restart()
	said("read-only file system")
	echo("after a start with a read-only disk")
}
