package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/structpb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice" // for the service files
	_ "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	"github.com/farspeak/farspeak/sdk/service"
)

// conversation is a connection that brings some messages and takes the answers.
type conversation struct {
	messages, answers []*fspb.Message
}

func (b *conversation) Receive(context.Context) (*fspb.Message, error) {
	if len(b.messages) == 0 {
		return nil, io.EOF
	}
	m := b.messages[0]
	b.messages = b.messages[1:]
	return m, nil
}

func (b *conversation) Send(_ context.Context, m *fspb.Message) error {
	b.answers = append(b.answers, m)
	return nil
}

func TestAnswers(t *testing.T) {
	id := bytes.Repeat([]byte{0xab}, 32)
	from := &fspb.Address{ServiceName: "inventory"}
	b := &conversation{messages: []*fspb.Message{
		{MessageId: id, Source: from, MessageType: "HostFacts"},
		{MessageId: id, MessageType: "HostFacts"}, // from nobody
		{MessageId: id, Source: from, MessageType: "\xff"},
	}}
	if err := service.Serve(t.Context(), b, answer); err != nil {
		t.Fatal(err)
	}
	if len(b.answers) != 2 {
		t.Fatalf("%d answers, want 2", len(b.answers))
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []map[string]any{
		{"name": name, "system": runtime.GOOS, "processors": float64(runtime.NumCPU()), "request": strings.Repeat("ab", 32)},
		{"error": `unknown message type "\xff", want HostFacts`, "request": strings.Repeat("ab", 32)},
	} {
		m, facts := b.answers[i], &structpb.Struct{}
		if err := m.GetData().UnmarshalTo(facts); err != nil || m.Destination.ServiceName != "inventory" || m.MessageType != "HostFactsAnswer" {
			t.Errorf("answer %d: %v, %v", i, m, err)
		}
		for key, value := range want {
			if got := facts.AsMap()[key]; got != value {
				t.Errorf("answer %d: %s is %v, want %v", i, key, got, value)
			}
		}
	}
}

// TestServiceFiles: what the README tells to install can be read.
func TestServiceFiles(t *testing.T) {
	for file, factory := range map[string]string{"hostfacts.config": "Daemon", "hostfacts-socket.config": "Socket"} {
		text, err := os.ReadFile("../textservices/" + file)
		if err != nil {
			t.Fatal(err)
		}
		config := &fspb.ClientServiceConfig{}
		if err := prototext.Unmarshal(text, config); err != nil || config.Factory != factory || config.Name == "" || config.Config == nil {
			t.Errorf("%s: %v, %v", file, config, err)
		}
	}
}

func TestSocketPathIsChecked(t *testing.T) {
	if err := serveSocket(t.Context(), "relative"); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestDaemonNeedsAnAgent(t *testing.T) {
	t.Setenv("FLEETSPEAK_COMMS_CHANNEL_INFD", "")
	if err := serveDaemon(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "an agent has to start this program") {
		t.Errorf("error %v", err)
	}
}
