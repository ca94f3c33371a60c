package harness

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// callTimeout bounds one call to fs-admin that has to succeed.
	callTimeout = 30 * time.Second
	// maxAdminMessage is what callers that list a whole fleet raise their limit to.
	maxAdminMessage = 1 << 30
)

// AdminClient calls fs-admin.
type AdminClient struct {
	serverpb.AdminClient
	Conn *grpc.ClientConn
}

// Dial makes a client of the fs-admin, or of the balancer before some, at address.
func Dial(tb testing.TB, address string) *AdminClient {
	tb.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAdminMessage)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &AdminClient{AdminClient: serverpb.NewAdminClient(conn), Conn: conn}
}

// Client makes a client of this fs-admin.
func (a *Admin) Client(tb testing.TB) *AdminClient {
	tb.Helper()
	return Dial(tb, a.Address)
}

// MustInsert inserts a message and returns its ID.
func (c *AdminClient) MustInsert(tb testing.TB, m *fspb.Message) []byte {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), callTimeout)
	defer cancel()
	if _, err := c.InsertMessage(ctx, m); err != nil {
		tb.Fatalf("InsertMessage: %v", err)
	}
	return m.MessageId
}

// MustListClients returns the clients of these IDs, or all.
func (c *AdminClient) MustListClients(tb testing.TB, ids ...[]byte) []*serverpb.Client {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), callTimeout)
	defer cancel()
	response, err := c.ListClients(ctx, &serverpb.ListClientsRequest{ClientIds: ids})
	if err != nil {
		tb.Fatalf("ListClients: %v", err)
	}
	return response.Clients
}

// Result is a message's result as fs-admin tells it; nil while there is none.
func (c *AdminClient) Result(tb testing.TB, id []byte) *fspb.MessageResult {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), callTimeout)
	defer cancel()
	response, err := c.GetMessageStatus(ctx, &serverpb.GetMessageStatusRequest{MessageId: id})
	if err != nil {
		tb.Fatalf("GetMessageStatus: %v", err)
	}
	return response.Result
}

// ToClient is a message from the service "sink" to a service on a client, under a fresh ID.
func ToClient(tb testing.TB, client []byte, service, text string) *fspb.Message {
	tb.Helper()
	m := &fspb.Message{
		MessageId:   make([]byte, 32),
		Source:      &fspb.Address{ServiceName: "sink"},
		Destination: &fspb.Address{ClientId: client, ServiceName: service},
		MessageType: "Text",
		Data:        Text(tb, text),
	}
	_, _ = rand.Read(m.MessageId) // never fails
	return m
}

// ToBackend is a message from a client's service "echo" to the service "sink".
func ToBackend(tb testing.TB, text string) *fspb.Message {
	tb.Helper()
	return &fspb.Message{
		Source:      &fspb.Address{ServiceName: "echo"},
		Destination: &fspb.Address{ServiceName: "sink"},
		MessageType: "Text",
		Data:        Text(tb, text),
	}
}

// Text is a payload.
func Text(tb testing.TB, text string) *anypb.Any {
	tb.Helper()
	payload, err := anypb.New(wrapperspb.String(text))
	if err != nil {
		tb.Fatal(err)
	}
	return payload
}
