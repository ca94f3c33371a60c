// Package proto_test guards what the protocol fixes: a name, number or type that moved would still compile here and
// fail in the field, against agents and backends that nobody can rebuild.
package proto_test

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/channel"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/client"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/config"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/cpsservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/frr"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/server"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// TestGeneratedCodeKeepsTheProtocol compares both ways: nothing published is missing or different, and nothing
// stands in the protocol's packages that is not in the table.
func TestGeneratedCodeKeepsTheProtocol(t *testing.T) {
	want := readTable(t, "testdata/protocol.txt")
	got := describeRegistry()
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	for name, fields := range got {
		if diff := gocmp.Diff(want[name], fields); diff != "" {
			t.Errorf("%s differs from the protocol (-want +got):\n%s", name, diff)
		}
	}
}

// readTable reads entries of testdata/protocol.txt: the name, and its parts in the table's order.
func readTable(t *testing.T, path string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table := make(map[string][]string)
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\n  ", " "), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, parts, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("%s: no colon in %q", path, line)
		}
		if _, repeated := table[name]; repeated {
			t.Fatalf("%s: %s stands there twice", path, name)
		}
		table[name] = splitParts(parts)
	}
	return table
}

// splitParts separates "1 a map<string,string>, 2 b bytes"; the comma inside of the map type has no space after it.
func splitParts(text string) []string {
	parts := []string{}
	for part := range strings.SplitSeq(text, ", ") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// describeRegistry renders all of the protocol that is linked into this test in the table's form.
func describeRegistry() map[string][]string {
	table := make(map[string][]string)
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(file.Path(), "fleetspeak/") {
			return true
		}
		describeEnums(table, file.Enums())
		describeMessages(table, file.Messages())
		describeMethods(table, file.Services())
		return true
	})
	return table
}

func describeMessages(table map[string][]string, messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		message := messages.Get(i)
		if message.IsMapEntry() {
			continue
		}
		table[string(message.FullName())] = describeFields(message)
		describeEnums(table, message.Enums())
		describeMessages(table, message.Messages())
	}
}

func describeFields(message protoreflect.MessageDescriptor) []string {
	fields := make([]protoreflect.FieldDescriptor, message.Fields().Len())
	for i := range fields {
		fields[i] = message.Fields().Get(i)
	}
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })

	parts := []string{}
	for _, field := range fields {
		parts = append(parts, describeField(field))
	}
	for i := range message.ReservedRanges().Len() {
		for number := message.ReservedRanges().Get(i)[0]; number < message.ReservedRanges().Get(i)[1]; number++ {
			parts = append(parts, fmt.Sprintf("reserved %d", number))
		}
	}
	return parts
}

func describeField(field protoreflect.FieldDescriptor) string {
	part := fmt.Sprintf("%d %s ", field.Number(), field.Name())
	switch {
	case field.IsMap():
		part += fmt.Sprintf("map<%s,%s>", typeName(field.MapKey()), typeName(field.MapValue()))
	case field.IsList():
		part += "repeated " + typeName(field)
	default:
		part += typeName(field)
	}
	if oneof := field.ContainingOneof(); oneof != nil {
		part += " in " + string(oneof.Name())
	}
	if field.Options().(*descriptorpb.FieldOptions).GetDeprecated() {
		part += " deprecated"
	}
	return part
}

func typeName(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return string(field.Message().FullName())
	case protoreflect.EnumKind:
		return string(field.Enum().FullName())
	default:
		return field.Kind().String()
	}
}

func describeEnums(table map[string][]string, enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		parts := []string{}
		for j := range values.Len() {
			parts = append(parts, fmt.Sprintf("%d %s", values.Get(j).Number(), values.Get(j).Name()))
		}
		table["enum "+string(enums.Get(i).FullName())] = parts
	}
}

func describeMethods(table map[string][]string, services protoreflect.ServiceDescriptors) {
	for i := range services.Len() {
		service := services.Get(i)
		for j := range service.Methods().Len() {
			method := service.Methods().Get(j)
			path := fmt.Sprintf("method /%s/%s", service.FullName(), method.Name())
			table[path] = []string{
				streamed(method.IsStreamingClient()) + string(method.Input().FullName()),
				streamed(method.IsStreamingServer()) + string(method.Output().FullName()),
			}
		}
	}
}

func streamed(yes bool) string {
	if yes {
		return "stream "
	}
	return ""
}

// TestContactDataBytes checks encodings that are spelled out in the protocol's description.
func TestContactDataBytes(t *testing.T) {
	for _, test := range []struct {
		name string
		data *fspb.ContactData
		want string
	}{
		{"nonce", &fspb.ContactData{SequencingNonce: 5}, "0805"},
		{"tokens", &fspb.ContactData{AllowedMessages: map[string]uint64{"system": 100}}, "320a0a0673797374656d1064"},
		{"acknowledgement", &fspb.ContactData{AckIndex: 1}, "2001"},
		{"close", &fspb.ContactData{DoneSending: true}, "2801"},
	} {
		got, err := proto.Marshal(test.data)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if hex.EncodeToString(got) != test.want {
			t.Errorf("%s is encoded as %x, want %s", test.name, got, test.want)
		}
	}
}

// TestTokensKeepTheirCapitals guards the one field whose JSON name does not follow the usual rule.
func TestTokensKeepTheirCapitals(t *testing.T) {
	got, err := protojson.Marshal(&fspb.ContactData{AllowedMessages: map[string]uint64{"echo": 1}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), `"AllowedMessages"`) {
		t.Errorf("JSON form is %s, want the field AllowedMessages", got)
	}
}
