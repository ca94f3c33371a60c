package cli_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func TestBroadcastCreate(t *testing.T) {
	f := newFake(t)
	r := f.fsctl(t, "broadcast", "create", "--service", "Shell", "--type", "Ping", "--label", "linux", "--label", "grr:lab",
		"--limit", "150", "--expires_in", "1h", "--broadcast_id", "0badcafe0badcafe")
	r.want(t, 0, "0badcafe0badcafe")
	want := &serverpb.CreateBroadcastRequest{Limit: 150, Broadcast: &serverpb.Broadcast{
		BroadcastId:    id(t, "0badcafe0badcafe"),
		Source:         &fspb.Address{ServiceName: "fsctl"},
		Destination:    &fspb.Address{ServiceName: "Shell"},
		MessageType:    "Ping",
		RequiredLabels: []*fspb.Label{{ServiceName: "client", Label: "linux"}, {ServiceName: "grr", Label: "lab"}},
	}}
	if diff := cmp.Diff(want, f.broadcasts[0], protocmp.Transform(), protocmp.IgnoreFields(&serverpb.Broadcast{}, "expiration_time")); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if left := time.Until(f.broadcasts[0].Broadcast.ExpirationTime.AsTime()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("expires in %v, want an hour", left)
	}
}

func TestBroadcastLimits(t *testing.T) {
	for text, want := range map[string]uint64{"unlimited": math.MaxInt64, "1": 1} {
		f := newFake(t)
		f.fsctl(t, "broadcast", "create", "--service", "S", "--limit", text).want(t, 0)
		if got := f.broadcasts[0].Limit; got != want {
			t.Errorf("--limit %s is %d, want %d", text, got, want)
		}
	}
	for _, text := range []string{"0", "-1", "many", ""} {
		newFake(t).fsctl(t, "broadcast", "create", "--service", "S", "--limit", text).wantError(t, 2, "--limit")
	}
}

func TestBroadcastListAndDisable(t *testing.T) {
	f := newFake(t)
	f.fsctl(t, "broadcast", "create", "--service", "S", "--limit", "1", "--broadcast_id", "00000000000000b1", "--source", "one").want(t, 0)
	f.fsctl(t, "broadcast", "create", "--service", "S", "--limit", "1", "--broadcast_id", "00000000000000b2", "--source", "two").want(t, 0)
	f.fsctl(t, "broadcast", "list").want(t, 0, "00000000000000b1", "00000000000000b2")
	r := f.fsctl(t, "broadcast", "list", "--source", "two", "-o", "json")
	if rows := decode[[]map[string]any](t, r); len(rows) != 1 || rows[0]["broadcast_id"] != "00000000000000b2" {
		t.Errorf("got %v, want the broadcast of two", rows)
	}
	f.fsctl(t, "broadcast", "disable", "00000000000000b1").want(t, 0)
	if want := [][]byte{id(t, "00000000000000b1")}; !cmp.Equal(want, f.disabled) {
		t.Errorf("disabled %x, want %x", f.disabled, want)
	}
	f.fsctl(t, "broadcast", "disable", "b1").wantError(t, 2, "16 hex digits")
}

func TestFiles(t *testing.T) {
	f := newFake(t)
	path := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.fsctl(t, "file", "put", "Probe", "rules.txt", path).want(t, 0, "rules.txt", "7")
	if got := string(f.files["Probe/rules.txt"]); got != "content" {
		t.Errorf("stored %q", got)
	}
	run(t, "piped", "file", "put", "Probe", "rules.txt", "-", "--admin", f.serve(t)).want(t, 0)
	if got := string(f.files["Probe/rules.txt"]); got != "piped" {
		t.Errorf("stored %q", got)
	}
	f.fsctl(t, "file", "delete", "Probe", "rules.txt").want(t, 0)
	if len(f.files) != 0 {
		t.Errorf("files left: %v", f.files)
	}
	f.fsctl(t, "file", "put", "Probe", "x", path+".none").wantError(t, 1, "no such file")
}

func TestServersAndBacklog(t *testing.T) {
	f := newFake(t)
	f.fsctl(t, "server", "list").want(t, 0, "s1", "192.0.2.9:8080", "1.0", "7", "false")
	f.fsctl(t, "backlog", "status").want(t, 0, "Shell", "3", "400", "1m30s")
	r := f.fsctl(t, "backlog", "status", "-o", "json")
	if got := fmt.Sprint(decode[[]map[string]any](t, r)); got != "[map[bytes:400 depth:3 oldest_age_seconds:90 service_name:Shell]]" {
		t.Errorf("got %s", got)
	}
}

func newLetters(t *testing.T, n int) []*controlpb.DeadLetter {
	var letters []*controlpb.DeadLetter
	for i := range n {
		letters = append(letters, &controlpb.DeadLetter{
			Service: "Shell", Reason: "bad message", FailedTime: timestamppb.Now(), Attempts: 3,
			Message: &fspb.Message{MessageId: id(t, fmt.Sprintf("%064x", i)), Source: &fspb.Address{ClientId: id(t, linuxID)}},
		})
	}
	return letters
}

func TestDeadLetterList(t *testing.T) {
	f := newFake(t)
	f.letters = newLetters(t, 5)
	for limit, want := range map[string]int{"0": 5, "3": 3, "100": 5} {
		r := f.fsctl(t, "deadletter", "list", "--limit", limit, "-o", "json", "--service", "Shell")
		r.want(t, 0)
		rows := decode[[]map[string]any](t, r)
		if len(rows) != want {
			t.Errorf("--limit %s lists %d, want %d", limit, len(rows), want)
		}
		if rows[0]["reason"] != "bad message" || rows[0]["source_client_id"] != linuxID {
			t.Errorf("got %v", rows[0])
		}
	}
	if f.pages[0].Service != "Shell" {
		t.Errorf("asked for letters of %q", f.pages[0].Service)
	}
}

func TestDeadLetterChanges(t *testing.T) {
	f := newFake(t)
	messageID := strings.Repeat("0a", 32)
	f.fsctl(t, "deadletter", "retry", "Shell", "--all").want(t, 0, "Retried:  5")
	if f.retried.Service != "Shell" || len(f.retried.MessageIds) != 0 {
		t.Errorf("retried %v, want all of Shell", f.retried)
	}
	f.fsctl(t, "deadletter", "retry", "Shell", messageID).want(t, 0)
	if want := [][]byte{id(t, messageID)}; !cmp.Equal(want, f.retried.MessageIds) {
		t.Errorf("retried %x, want %x", f.retried.MessageIds, want)
	}
	f.fsctl(t, "deadletter", "delete", "Shell", messageID, messageID).want(t, 0, "Deleted:  2")
	// Which letters has to be said: neither nothing nor both.
	f.fsctl(t, "deadletter", "delete", "Shell").wantError(t, 2, "say which letters")
	f.fsctl(t, "deadletter", "delete", "Shell", "--all", messageID).wantError(t, 2, "say which letters")
}
