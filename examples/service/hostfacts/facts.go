package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

const (
	askType    = "HostFacts"
	answerType = "HostFactsAnswer"
)

// answer answers one message. Nothing that a backend sends may end the service, so what goes wrong is the answer.
func answer(_ context.Context, m *fspb.Message) (*fspb.Message, error) {
	if m.GetSource().GetServiceName() == "" {
		return nil, nil // nobody to answer to
	}
	facts := map[string]any{"error": fmt.Sprintf("unknown message type %q, want %s", m.GetMessageType(), askType)}
	if m.GetMessageType() == askType {
		facts = hostFacts()
	}
	// An answer carries no reference to the message that caused it, unless one is put in.
	facts["request"] = hex.EncodeToString(m.GetMessageId())
	data, err := structpb.NewStruct(facts)
	if err != nil {
		return nil, err
	}
	return service.Reply(m, answerType, data)
}

// hostFacts is what the standard library knows without looking far.
func hostFacts() map[string]any {
	facts := map[string]any{
		"system":       runtime.GOOS,
		"architecture": runtime.GOARCH,
		"processors":   runtime.NumCPU(),
	}
	if name, err := os.Hostname(); err == nil {
		facts["name"] = strings.ToValidUTF8(name, "?")
	}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		facts["addresses"] = texts(addresses)
	}
	return facts
}

func texts[T fmt.Stringer](values []T) []any {
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v.String()
	}
	return list
}
