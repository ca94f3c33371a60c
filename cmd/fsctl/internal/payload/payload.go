// Package payload builds the google.protobuf.Any of a message from what somebody typed: raw bytes under a type URL, JSON
// of a type that this binary knows, or the parts of a request to a Stdin service.
package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	_ "github.com/farspeak/farspeak/proto/fleetspeak" // types that --json knows
	_ "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/frr"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// typeURLPrefix is what a bare message name gets in front.
const typeURLPrefix = "type.googleapis.com/"

// StdinMessageType is the message_type that Stdin services take.
const StdinMessageType = "StdinServiceInputMessage"

// Raw packs bytes that are already serialized.
func Raw(typeURL string, data []byte) (*anypb.Any, error) {
	if typeURL == "" {
		return nil, errors.New("a type URL is needed, for example " + typeURLPrefix + "fleetspeak.DieRequest")
	}
	return &anypb.Any{TypeUrl: fullURL(typeURL), Value: data}, nil
}

// JSON packs text, which is JSON of the type typeURL; when that is empty the text names its type in a field "@type".
func JSON(typeURL string, text []byte) (*anypb.Any, error) {
	if typeURL == "" {
		return jsonWithType(text)
	}
	m, err := newMessage(typeURL)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("JSON of %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return anypb.New(m)
}

func jsonWithType(text []byte) (*anypb.Any, error) {
	var named struct {
		Type string `json:"@type"`
	}
	if err := json.Unmarshal(text, &named); err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	if named.Type == "" {
		return nil, errors.New(`the JSON does not name its type: add a field "@type", or give a type URL`)
	}
	if _, err := newMessage(named.Type); err != nil {
		return nil, err
	}
	data := &anypb.Any{}
	if err := protojson.Unmarshal(text, data); err != nil {
		return nil, fmt.Errorf("JSON of %s: %w", named.Type, err)
	}
	return data, nil
}

// Stdin packs a request to a Stdin service.
func Stdin(args []string, input []byte) (*anypb.Any, error) {
	return anypb.New(&stdinpb.InputMessage{Args: args, Input: input})
}

// Describe returns a payload as JSON, for people: the message itself when its type is known, else type URL and bytes.
func Describe(data *anypb.Any) (json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	if text, err := protojson.Marshal(data); err == nil {
		return text, nil
	}
	return json.Marshal(struct {
		Type  string `json:"@type"`
		Bytes []byte `json:"bytes"`
	}{data.GetTypeUrl(), data.GetValue()})
}

func newMessage(typeURL string) (proto.Message, error) {
	name := typeURL[strings.LastIndexByte(typeURL, '/')+1:]
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("message type %q is not known here: serialize it elsewhere and give the bytes in a file", name)
	}
	return t.New().Interface(), nil
}

func fullURL(typeURL string) string {
	if strings.Contains(typeURL, "/") {
		return typeURL
	}
	return typeURLPrefix + typeURL
}
