package proto_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc"

	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// TestServedMethodPaths looks at what a gRPC server really registers: backends dial these paths.
func TestServedMethodPaths(t *testing.T) {
	for _, test := range []struct {
		name    string
		service grpc.ServiceDesc
		want    []string
	}{
		{"Admin", serverpb.Admin_ServiceDesc, []string{
			"/fleetspeak.server.Admin/BlacklistClient",
			"/fleetspeak.server.Admin/CreateBroadcast",
			"/fleetspeak.server.Admin/DeleteFile",
			"/fleetspeak.server.Admin/DeletePendingMessages",
			"/fleetspeak.server.Admin/DisableBroadcasts",
			"/fleetspeak.server.Admin/FetchClientResourceUsageRecords",
			"/fleetspeak.server.Admin/GetMessageStatus",
			"/fleetspeak.server.Admin/GetPendingMessageCount",
			"/fleetspeak.server.Admin/GetPendingMessages",
			"/fleetspeak.server.Admin/InsertMessage",
			"/fleetspeak.server.Admin/KeepAlive",
			"/fleetspeak.server.Admin/ListActiveBroadcasts",
			"/fleetspeak.server.Admin/ListClientContacts",
			"/fleetspeak.server.Admin/ListClients",
			"/fleetspeak.server.Admin/StoreFile",
			"/fleetspeak.server.Admin/StreamClientContacts",
			"/fleetspeak.server.Admin/StreamClientIds",
		}},
		{"Processor", grpcservicepb.Processor_ServiceDesc, []string{
			"/fleetspeak.grpcservice.Processor/Process",
		}},
	} {
		if got := methodPaths(test.service); !slices.Equal(got, test.want) {
			t.Errorf("%s serves %q, want %q", test.name, got, test.want)
		}
	}
}

func methodPaths(service grpc.ServiceDesc) []string {
	var paths []string
	for _, method := range service.Methods {
		paths = append(paths, "/"+service.ServiceName+"/"+method.MethodName)
	}
	for _, stream := range service.Streams {
		paths = append(paths, "/"+service.ServiceName+"/"+stream.StreamName)
	}
	slices.Sort(paths)
	return paths
}
