package payload_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/payload"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

func TestKnownTypes(t *testing.T) {
	die := &fspb.DieRequest{Force: true}
	for name, c := range map[string]struct {
		build func() (*anypb.Any, error)
		want  proto.Message
	}{
		"JSON with URL": {func() (*anypb.Any, error) {
			return payload.JSON("type.googleapis.com/fleetspeak.DieRequest", []byte(`{"force":true}`))
		}, die},
		"JSON with name": {func() (*anypb.Any, error) { return payload.JSON("fleetspeak.DieRequest", []byte(`{"force":true}`)) }, die},
		"JSON with @type": {
			func() (*anypb.Any, error) {
				return payload.JSON("", []byte(`{"@type":"type.googleapis.com/fleetspeak.DieRequest","force":true}`))
			}, die,
		},
		"raw": {func() (*anypb.Any, error) { return payload.Raw("fleetspeak.DieRequest", []byte{8, 1}) }, die},
		"stdin": {
			func() (*anypb.Any, error) { return payload.Stdin([]string{"-a", "b c"}, []byte("in")) },
			&stdinpb.InputMessage{Args: []string{"-a", "b c"}, Input: []byte("in")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := c.build()
			if err != nil {
				t.Fatal(err)
			}
			if want := "type.googleapis.com/" + string(c.want.ProtoReflect().Descriptor().FullName()); data.TypeUrl != want {
				t.Errorf("type URL %q, want %q", data.TypeUrl, want)
			}
			got := c.want.ProtoReflect().New().Interface()
			if err := data.UnmarshalTo(got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("payload (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		build func() (*anypb.Any, error)
		want  string
	}{
		"raw without type":     {func() (*anypb.Any, error) { return payload.Raw("", nil) }, "a type URL is needed"},
		"JSON of unknown type": {func() (*anypb.Any, error) { return payload.JSON("other.Message", []byte("{}")) }, `"other.Message" is not known here`},
		"unknown @type":        {func() (*anypb.Any, error) { return payload.JSON("", []byte(`{"@type":"a/other.M"}`)) }, `"other.M" is not known here`},
		"no @type":             {func() (*anypb.Any, error) { return payload.JSON("", []byte(`{}`)) }, `add a field "@type"`},
		"not JSON":             {func() (*anypb.Any, error) { return payload.JSON("", []byte(`{`)) }, "JSON: "},
		"unknown field":        {func() (*anypb.Any, error) { return payload.JSON("fleetspeak.DieRequest", []byte(`{"hard":1}`)) }, "JSON of fleetspeak.DieRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.build(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	known, err := payload.JSON("fleetspeak.DieRequest", []byte(`{"force":true}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data *anypb.Any
		want string
	}{
		"nothing":      {nil, ""},
		"known type":   {known, `{"@type":"type.googleapis.com/fleetspeak.DieRequest","force":true}`},
		"unknown type": {&anypb.Any{TypeUrl: "x/other.M", Value: []byte("hi")}, `{"@type":"x/other.M","bytes":"aGk="}`},
		"bad bytes":    {&anypb.Any{TypeUrl: "x/fleetspeak.DieRequest", Value: []byte{0xff}}, `{"@type":"x/fleetspeak.DieRequest","bytes":"/w=="}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := payload.Describe(c.data)
			if err != nil {
				t.Fatal(err)
			}
			// protojson varies its white space on purpose.
			if text := strings.ReplaceAll(string(got), " ", ""); text != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
}
