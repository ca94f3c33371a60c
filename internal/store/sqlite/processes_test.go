package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// childPath makes the test binary another daemon on the file that it names.
const childPath = "FARSPEAK_TEST_SQLITE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		if err := runChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild registers a client, inserts messages to it until it is killed, and prints the ID of each once it is answered.
func runChild(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	id, err := register(ctx, s)
	if err != nil {
		return err
	}
	for {
		m := newMessage(id)
		if _, err := s.InsertMessages(ctx, []*fspb.Message{m}); err != nil {
			return err
		}
		fmt.Println(identity.MessageID(m.MessageId))
	}
}

func register(ctx context.Context, s *sqlbase.Store) (identity.ClientID, error) {
	id := identity.NewClientID()
	_, err := s.RecordContacts(ctx, []store.ContactUpdate{{ClientID: id, Key: id.Bytes()}})
	return id, err
}

func newMessage(to identity.ClientID) *fspb.Message {
	return &fspb.Message{
		MessageId: identity.NewMessageID().Bytes(), Source: &fspb.Address{ServiceName: "backend"},
		Destination: &fspb.Address{ClientId: to.Bytes(), ServiceName: "service"},
	}
}

// TestProcessesShareTheFile writes from three processes at once and kills two of them: what was answered is there, and
// the file serves the one that is left.
func TestProcessesShareTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s := openStore(t, path)
	var children sync.WaitGroup
	for range 2 {
		children.Go(func() {
			for _, text := range killedChild(t, path, 40) {
				id, err := identity.ParseMessageID(text)
				if err != nil {
					t.Error(err)
					continue
				}
				if _, err := s.MessageStatus(t.Context(), id); err != nil {
					t.Errorf("message %v was answered by a process that was killed, and is lost: %v", id, err)
				}
			}
		})
	}
	id, err := register(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if _, err := s.InsertMessages(t.Context(), []*fspb.Message{newMessage(id)}); err != nil {
			t.Fatal(err)
		}
	}
	children.Wait()
	if n, err := s.PendingCount(t.Context(), []identity.ClientID{id}); err != nil || n != 40 {
		t.Errorf("%d messages, %v; want 40", n, err)
	}
}

// killedChild starts a child, kills it after it has said a number of lines, and returns the whole lines that it said.
func killedChild(t *testing.T, path string, enough int) (lines []string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childPath+"="+path)
	var faults strings.Builder
	child.Stderr = &faults
	out, err := child.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := child.Start(); err != nil {
		t.Error(err)
		return nil
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break
		}
		lines = append(lines, strings.TrimSpace(line))
		if len(lines) == enough {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = child.Wait() // it was killed
	if len(lines) < enough {
		t.Errorf("a child ended after %d messages: %s", len(lines), faults.String())
	}
	return lines
}
