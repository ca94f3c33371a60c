package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

func mustAny(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	data, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestMessageSend(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	die := mustAny(t, &fspb.DieRequest{Force: true})
	for name, c := range map[string]struct {
		stdin string
		args  []string
		kind  string
		data  *anypb.Any
	}{
		"nothing":    {"", []string{"--type", "Ping"}, "Ping", nil},
		"raw file":   {"", []string{"--type", "T", "--type_url", "x.Y", "--data_file", file}, "T", &anypb.Any{TypeUrl: "type.googleapis.com/x.Y", Value: []byte("bytes")}},
		"raw stdin":  {"in", []string{"--type", "T", "--type_url", "h/x.Y", "--data_file", "-"}, "T", &anypb.Any{TypeUrl: "h/x.Y", Value: []byte("in")}},
		"empty type": {"", []string{"--type_url", "x.Y"}, "", &anypb.Any{TypeUrl: "type.googleapis.com/x.Y"}},
		"JSON":       {"", []string{"--type", "Die", "--type_url", "fleetspeak.DieRequest", "--json", `{"force": true}`}, "Die", die},
		"JSON @type": {"", []string{"--type", "Die", "--json", `{"@type": "type.googleapis.com/fleetspeak.DieRequest", "force": true}`}, "Die", die},
		"args":       {"", []string{"--stdin_args=-c", "--stdin_args=a, b"}, "StdinServiceInputMessage", mustAny(t, &stdinpb.InputMessage{Args: []string{"-c", "a, b"}})},
		"input":      {"", []string{"--stdin_input", file, "--type", "Other"}, "Other", mustAny(t, &stdinpb.InputMessage{Input: []byte("bytes")})},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			args := append([]string{"message", "send", linuxID, "--service", "Shell", "--annotation", "k=v=w", "-o", "json", "--admin", f.serve(t)}, c.args...)
			r := run(t, c.stdin, args...)
			r.want(t, 0)
			row := decode[[]map[string]any](t, r)[0]
			messageID := id(t, row["message_id"].(string))
			want := &fspb.Message{
				MessageId:   messageID,
				Source:      &fspb.Address{ServiceName: "fsctl"},
				Destination: &fspb.Address{ClientId: id(t, linuxID), ServiceName: "Shell"},
				MessageType: c.kind,
				Data:        c.data,
				Annotations: &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "k", Value: "v=w"}}},
			}
			got := f.messages[string(messageID)]
			if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&fspb.Message{}, "creation_time")); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			if row["status"] != "stored" || row["client_id"] != linuxID || len(messageID) != 32 {
				t.Errorf("got %v, want a stored message to the client", row)
			}
		})
	}
}

func TestMessageSendJSONFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, []byte(`{"name": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	f.fsctl(t, "message", "send", linuxID, "--service", "system", "--type_url", "fleetspeak.RestartServiceRequest", "--json", "@"+file).want(t, 0)
	for _, m := range f.messages {
		if want := mustAny(t, &fspb.RestartServiceRequest{Name: "x"}); !proto.Equal(m.Data, want) {
			t.Errorf("payload %v, want %v", m.Data, want)
		}
	}
}

func TestMessageSendToMany(t *testing.T) {
	f := newFake(t)
	r := f.fsctl(t, "message", "send", linuxID, unknownID, windowsID, "--service", "Shell", "-o", "json")
	r.wantError(t, 1, "1 of 3 failed")
	status := map[string]string{}
	for _, row := range decode[[]map[string]any](t, r) {
		status[row["client_id"].(string)] = fmt.Sprint(row["status"], " ", row["error"])
	}
	want := map[string]string{linuxID: "stored <nil>", windowsID: "stored <nil>", unknownID: "failed no such client"}
	if diff := cmp.Diff(want, status); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if len(f.messages) != 2 {
		t.Errorf("%d messages are stored, want 2", len(f.messages))
	}
}

// TestMessageSendRetries repeats a message under the ID that it has.
func TestMessageSendRetries(t *testing.T) {
	f := newFake(t)
	f.failFirst = 2
	messageID := strings.Repeat("ab", 32)
	f.fsctl(t, "message", "send", linuxID, "--service", "Shell", "--message_id", messageID).want(t, 0, messageID, "stored")
	if f.inserts != 3 || len(f.messages) != 1 {
		t.Errorf("%d inserts and %d messages, want 3 and 1", f.inserts, len(f.messages))
	}
}

func TestMessageSendWait(t *testing.T) {
	f := newFake(t)
	f.completeIn[string(id(t, linuxID))] = 2
	f.fsctl(t, "message", "send", linuxID, "--service", "Shell", "--wait").want(t, 0, "completed")
}

func TestMessageSendWaitTimeout(t *testing.T) {
	f := newFake(t)
	f.completeIn[string(id(t, linuxID))] = 0
	r := f.fsctl(t, "message", "send", linuxID, windowsID, "--service", "Shell", "--wait", "--wait_timeout", "20ms")
	r.wantError(t, 1, "1 of 2 messages are not completed after 20ms")
	r.want(t, 1, "completed", "stored")
}

func TestMessageStatus(t *testing.T) {
	f := newFake(t)
	now := timestamppb.Now()
	ids := map[string]*fspb.MessageResult{
		strings.Repeat("01", 32): nil,
		strings.Repeat("02", 32): {ProcessedTime: now},
		strings.Repeat("03", 32): {ProcessedTime: now, Failed: true, FailedReason: "no luck"},
	}
	args := []string{"message", "status", "-o", "json", strings.Repeat("04", 32)}
	for text, result := range ids {
		f.messages[string(id(t, text))] = &fspb.Message{CreationTime: now, Result: result}
		args = append(args, text)
	}
	r := f.fsctl(t, args...)
	r.wantError(t, 1, "2 of 4 messages failed or are unknown")
	got := map[string]string{}
	for _, row := range decode[[]map[string]any](t, r) {
		got[row["message_id"].(string)[:2]] = fmt.Sprint(row["status"], " ", row["error"])
	}
	want := map[string]string{"01": "stored <nil>", "02": "completed <nil>", "03": "failed no luck", "04": "unknown <nil>"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestMessagePending(t *testing.T) {
	f := newFake(t)
	f.messages["x"] = &fspb.Message{
		MessageId: id(t, strings.Repeat("0a", 32)), MessageType: "Die", Source: &fspb.Address{ServiceName: "me"},
		Destination: &fspb.Address{ClientId: id(t, linuxID), ServiceName: "system"}, Data: mustAny(t, &fspb.DieRequest{Force: true}),
	}
	f.fsctl(t, "message", "pending", linuxID).want(t, 0, strings.Repeat("0a", 32), linuxID, "system", "me", "Die")
	r := f.fsctl(t, "message", "pending", linuxID, "--data", "-o", "json")
	r.want(t, 0)
	data := decode[[]map[string]any](t, r)[0]["data"]
	if want := "map[@type:type.googleapis.com/fleetspeak.DieRequest force:true]"; fmt.Sprint(data) != want {
		t.Errorf("data %v, want %s", data, want)
	}
	f.fsctl(t, "message", "pending", linuxID, windowsID, "--count").want(t, 0, "20")
	f.fsctl(t, "message", "pending", linuxID, "--offset", "5", "--limit", "0").wantError(t, 2, "--offset needs a --limit")
}

func TestMessageDelete(t *testing.T) {
	f := newFake(t)
	f.fsctl(t, "message", "delete", linuxID).want(t, 0, "Emptied queues:  1")
	if want := [][]byte{id(t, linuxID)}; !cmp.Equal(want, f.emptied) {
		t.Errorf("deleted those of %x, want of %x", f.emptied, want)
	}
}
