package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

// caller is a backend, and an operator.
type caller struct {
	*testing.T
	daemon  *harness.Admin
	db      *sqlbase.Store
	fleet   *server
	conn    *grpc.ClientConn
	admin   serverpb.AdminClient
	control controlpb.ControlClient
	id      identity.ClientID // a client that is connected to fleet
}

func (c *caller) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *caller) register() {
	c.id = identity.NewClientID()
	_, err := c.db.RecordContacts(c.Context(), []store.ContactUpdate{{
		ClientID: c.id, Key: c.id.Bytes(), ClaimedLabels: []string{"linux"}, Address: "192.0.2.1:1", StreamingTo: c.fleet.address,
	}})
	c.must(err)
	_, err = c.db.Heartbeat(c.Context(), store.ServerInfo{ID: "server", Address: c.fleet.address, Version: "1"})
	c.must(err)
}

func (c *caller) message() *fspb.Message {
	return harness.ToClient(c, c.id.Bytes(), "shell", "uname")
}

func (c *caller) messages() {
	_, err := c.admin.KeepAlive(c.Context(), &fspb.EmptyMessage{})
	c.must(err)
	m := c.message()
	for range 2 {
		_, err = c.admin.InsertMessage(c.Context(), m)
		c.must(err)
		if woken := receive(c.T, c.fleet.woken); woken != c.id {
			c.Errorf("woken: %v", woken)
		}
	}
	m.Destination.ClientId = identity.NewClientID().Bytes()
	_, err = c.admin.InsertMessage(c.Context(), m)
	if status.Code(err) != codes.NotFound {
		c.Errorf("a message to nobody: %v", err)
	}
	ids := [][]byte{c.id.Bytes()}
	pending, err := c.admin.GetPendingMessages(c.Context(), &serverpb.GetPendingMessagesRequest{ClientIds: ids, WantData: true})
	c.must(err)
	count, err := c.admin.GetPendingMessageCount(c.Context(), &serverpb.GetPendingMessageCountRequest{ClientIds: ids})
	c.must(err)
	if len(pending.Messages) != 1 || pending.Messages[0].Data == nil || count.Count != 1 {
		c.Errorf("pending: %v, %v", pending, count)
	}
	_, err = c.admin.DeletePendingMessages(c.Context(), &serverpb.DeletePendingMessagesRequest{ClientIds: ids})
	c.must(err)
	answer, err := c.admin.GetMessageStatus(c.Context(), &serverpb.GetMessageStatusRequest{MessageId: m.MessageId})
	c.must(err)
	if !answer.Result.GetFailed() || answer.Result.FailedReason != "Removed by admin action." {
		c.Errorf("status: %v", answer)
	}
}

func (c *caller) clients() {
	listed, err := c.admin.ListClients(c.Context(), &serverpb.ListClientsRequest{ClientIds: [][]byte{c.id.Bytes()}})
	c.must(err)
	if len(listed.Clients) != 1 || len(listed.Clients[0].Labels) != 1 {
		c.Errorf("listed: %v", listed)
	}
	stream, err := c.admin.StreamClientIds(c.Context(), &serverpb.StreamClientIdsRequest{})
	c.must(err)
	if first, err := stream.Recv(); err != nil || identity.ClientID(first.ClientId) != c.id {
		c.Errorf("streamed: %v, %v", first, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		c.Errorf("after the last ID: %v", err)
	}
	contacts, err := c.admin.ListClientContacts(c.Context(), &serverpb.ListClientContactsRequest{ClientId: c.id.Bytes()})
	c.must(err)
	contactStream, err := c.admin.StreamClientContacts(c.Context(), &serverpb.StreamClientContactsRequest{ClientId: c.id.Bytes()})
	c.must(err)
	if contact, err := contactStream.Recv(); err != nil || len(contacts.Contacts) != 1 || contact.Contact.ObservedAddress != "192.0.2.1:1" {
		c.Errorf("contacts: %v, %v, %v", contacts, contact, err)
	}
	usage, err := c.admin.FetchClientResourceUsageRecords(c.Context(), &serverpb.FetchClientResourceUsageRecordsRequest{
		ClientId: c.id.Bytes(), StartTimestamp: &timestamppb.Timestamp{}, EndTimestamp: timestamppb.Now(),
	})
	c.must(err)
	if len(usage.Records) != 0 {
		c.Errorf("usage: %v", usage)
	}
	_, err = c.admin.BlacklistClient(c.Context(), &serverpb.BlacklistClientRequest{ClientId: c.id.Bytes()})
	c.must(err)
	if refused := receive(c.T, c.fleet.refused); refused != c.id {
		c.Errorf("told of %v", refused)
	}
}

func (c *caller) broadcasts() {
	id := identity.NewBroadcastID().Bytes()
	_, err := c.admin.CreateBroadcast(c.Context(), &serverpb.CreateBroadcastRequest{
		Broadcast: &serverpb.Broadcast{BroadcastId: id, Source: &fspb.Address{ServiceName: "backend"}}, Limit: 3,
	})
	c.must(err)
	receive(c.T, c.fleet.changed)
	active := func() int {
		answer, err := c.admin.ListActiveBroadcasts(c.Context(), &serverpb.ListActiveBroadcastsRequest{})
		c.must(err)
		return len(answer.Broadcasts)
	}
	before := active()
	_, err = c.admin.DisableBroadcasts(c.Context(), &serverpb.DisableBroadcastsRequest{BroadcastIds: [][]byte{id}})
	c.must(err)
	receive(c.T, c.fleet.changed)
	if after := active(); before != 1 || after != 0 {
		c.Errorf("%d active, then %d; want 1, then 0", before, after)
	}
}

func (c *caller) files() {
	_, err := c.admin.StoreFile(c.Context(), &serverpb.StoreFileRequest{ServiceName: "s", FileName: "f", Data: make([]byte, 8<<20)})
	c.must(err)
	if info, err := c.db.StatFile(c.Context(), "s", "f"); err != nil || info.Size != 8<<20 {
		c.Errorf("stored: %v, %v", info, err)
	}
	_, err = c.admin.DeleteFile(c.Context(), &serverpb.DeleteFileRequest{ServiceName: "s", FileName: "f"})
	c.must(err)
	if _, err := c.db.StatFile(c.Context(), "s", "f"); !errors.Is(err, store.ErrNotFound) {
		c.Errorf("after deleting: %v", err)
	}
}

func (c *caller) operators() {
	servers, err := c.control.ListServers(c.Context(), &controlpb.ListServersRequest{})
	c.must(err)
	services, err := c.control.ListClientServices(c.Context(), &controlpb.ListClientServicesRequest{ClientId: c.id.Bytes()})
	c.must(err)
	m := c.message()
	m.Destination.ClientId = nil
	_, err = c.admin.InsertMessage(c.Context(), m)
	c.must(err)
	backlog, err := c.control.BacklogStatus(c.Context(), &controlpb.BacklogStatusRequest{})
	c.must(err)
	letters, err := c.control.ListDeadLetters(c.Context(), &controlpb.ListDeadLettersRequest{})
	c.must(err)
	retried, err := c.control.RetryDeadLetters(c.Context(), &controlpb.RetryDeadLettersRequest{Service: "s"})
	c.must(err)
	deleted, err := c.control.DeleteDeadLetters(c.Context(), &controlpb.DeleteDeadLettersRequest{Service: "s"})
	c.must(err)
	if len(servers.Servers) != 1 || len(services.Services) != 0 || len(backlog.Services) != 1 || len(letters.DeadLetters) != 0 ||
		retried.Count != 0 || deleted.Count != 0 {
		c.Errorf("%v, %v, %v, %v, %v, %v", servers, services, backlog, letters, retried, deleted)
	}
}

// watches looks at health and metrics.
func (c *caller) watches() {
	answer, err := healthpb.NewHealthClient(c.conn).Check(c.Context(), &healthpb.HealthCheckRequest{Service: "fleetspeak.server.Admin"})
	if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
		c.Errorf("health: %v, %v", answer, err)
	}
	metrics := c.daemon.Metrics(c)
	for _, want := range []string{
		`farspeak_admin_calls_total{code="OK",method="InsertMessage"} 3`,
		`farspeak_notifications_sent_total{form="batch"}`,
		`farspeak_batch_items_count{batch="inserts"}`,
		`farspeak_retention_rows_removed_total 0`,
		`fleetspeak_server_datastore_operations_completed_latency_count{`,
		`farspeak_build_info{`,
	} {
		if !strings.Contains(metrics, want) {
			c.Errorf("metrics lack %s", want)
		}
	}
	for _, want := range []string{"audit: method=BlacklistClient", "client=" + c.id.String()} {
		if !strings.Contains(c.daemon.Log(), want) {
			c.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(c.daemon.Log(), "uname") {
		c.Error("the log tells a payload")
	}
}

// insertUntilRefused inserts from many callers until the daemon stops, and counts what was acknowledged. It says when the
// callers are well under way.
func (c *caller) insertUntilRefused(underWay chan<- struct{}, acknowledged chan<- int64) {
	const callers, many = 20, 300
	var count atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				if _, err := c.admin.InsertMessage(context.Background(), c.message()); err != nil {
					return
				}
				if count.Add(1) == many {
					close(underWay)
				}
			}
		})
	}
	all.Wait()
	acknowledged <- count.Load()
}

// checkAllStored compares what was acknowledged up to the stop with what is stored.
func (c *caller) checkAllStored(acknowledged int64) {
	count, err := c.db.PendingCount(c.Context(), []identity.ClientID{c.id})
	c.must(err)
	if acknowledged == 0 || count < uint64(acknowledged) {
		c.Errorf("%d messages stored of %d acknowledged", count, acknowledged)
	}
	c.Logf("%d messages acknowledged before the stop, %d stored", acknowledged, count)
}
