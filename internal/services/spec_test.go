package services_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/services"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSpecs(t *testing.T) {
	grr := packed(t, &grpcservicepb.Config{Target: "localhost:1", Insecure: true})
	specs, err := services.Specs(&serverpb.ServerConfig{Services: []*serverpb.ServiceConfig{
		{Name: "Null", Factory: "NOOP"},
		{Name: "GRR", Factory: "NOOP"},
		{Name: "GRR", Factory: "GRPC", MaxParallelism: 7, Config: grr},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(specs) != 2 || specs[1].Factory != "GRPC" || specs[1].MaxParallelism != 7 || specs[1].GRPC.GetTarget() != "localhost:1" {
		t.Errorf("specs %+v; want Null and the later GRR", specs)
	}
	if specs, err := services.Specs(&serverpb.ServerConfig{}); err != nil || len(specs) != 0 {
		t.Errorf("empty configuration: %v, %v", specs, err)
	}
}

func TestSpecsNamesEveryFault(t *testing.T) {
	_, err := services.Specs(&serverpb.ServerConfig{Services: []*serverpb.ServiceConfig{
		{Name: "", Factory: "NOOP"},
		{Name: "client", Factory: "NOOP"},
		{Name: strings.Repeat("x", 200), Factory: "NOOP"},
		{Name: "A", Factory: "GRPC"},
		{Name: "B", Factory: "GRPC", Config: packed(t, wrapperspb.String("no"))},
		{Name: "C", Factory: "GRPC", Config: packed(t, &grpcservicepb.Config{Target: "x:1", CertFile: "/nowhere/roots.pem"})},
		{Name: "D"},
	}})
	if err == nil {
		t.Fatal("no error")
	}
	for i, want := range []string{"empty", "reserved", "200 bytes", "grpcservice.Config", "mismatched message type", "/nowhere/roots.pem", `""`} {
		line := strings.Split(err.Error(), "\n")[i]
		if want == "reserved" {
			want = `"client"`
		}
		if !strings.Contains(line, want) {
			t.Errorf("fault %d is %q, want one that contains %q", i, line, want)
		}
	}
}

func TestParseCodes(t *testing.T) {
	got, err := services.ParseCodes([]string{"INVALID_ARGUMENT", "OUT_OF_RANGE"})
	if want := []codes.Code{codes.InvalidArgument, codes.OutOfRange}; err != nil || !slices.Equal(got, want) {
		t.Errorf("ParseCodes = %v, %v", got, err)
	}
	for _, bad := range []string{"", "InvalidArgument", "OK", "3", `"`} {
		if got, err := services.ParseCodes([]string{bad}); err == nil {
			t.Errorf("ParseCodes(%q) = %v", bad, got)
		}
	}
}
