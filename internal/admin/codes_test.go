package admin_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// calls is a valid call of every method that reaches the store.
func (f *fixture) calls() map[string]func(context.Context) error {
	id, mid, now := identity.NewClientID().Bytes(), identity.NewMessageID().Bytes(), timestamppb.Now()
	result := func(_ any, err error) error { return err }
	return map[string]func(context.Context) error{
		"CreateBroadcast": func(ctx context.Context) error {
			return result(f.admin.CreateBroadcast(ctx, &serverpb.CreateBroadcastRequest{Broadcast: aBroadcast(), Limit: 1}))
		},
		"ListActiveBroadcasts": func(ctx context.Context) error {
			return result(f.admin.ListActiveBroadcasts(ctx, &serverpb.ListActiveBroadcastsRequest{}))
		},
		"DisableBroadcasts": func(ctx context.Context) error {
			return result(f.admin.DisableBroadcasts(ctx, &serverpb.DisableBroadcastsRequest{BroadcastIds: [][]byte{id}}))
		},
		"ListClients": func(ctx context.Context) error {
			return result(f.admin.ListClients(ctx, &serverpb.ListClientsRequest{}))
		},
		"ListClients by ID": func(ctx context.Context) error {
			return result(f.admin.ListClients(ctx, &serverpb.ListClientsRequest{ClientIds: [][]byte{id}}))
		},
		"StreamClientIds": func(ctx context.Context) error {
			stream, err := f.admin.StreamClientIds(ctx, &serverpb.StreamClientIdsRequest{})
			if err != nil {
				return err
			}
			return result(stream.Recv())
		},
		"ListClientContacts": func(ctx context.Context) error {
			return result(f.admin.ListClientContacts(ctx, &serverpb.ListClientContactsRequest{ClientId: id}))
		},
		"StreamClientContacts": func(ctx context.Context) error {
			stream, err := f.admin.StreamClientContacts(ctx, &serverpb.StreamClientContactsRequest{ClientId: id})
			if err != nil {
				return err
			}
			return result(stream.Recv())
		},
		"GetMessageStatus": func(ctx context.Context) error {
			return result(f.admin.GetMessageStatus(ctx, &serverpb.GetMessageStatusRequest{MessageId: mid}))
		},
		"InsertMessage": func(ctx context.Context) error {
			return result(f.admin.InsertMessage(ctx, message(identity.ClientID(id))))
		},
		"InsertMessage, too large": func(ctx context.Context) error {
			m := message(identity.ClientID(id))
			m.Data.Value = make([]byte, 2<<20)
			return result(f.admin.InsertMessage(ctx, m))
		},
		"InsertMessage for a service": func(ctx context.Context) error {
			return result(f.admin.InsertMessage(ctx, message(identity.ClientID{})))
		},
		"DeletePendingMessages": func(ctx context.Context) error {
			return result(f.admin.DeletePendingMessages(ctx, &serverpb.DeletePendingMessagesRequest{ClientIds: [][]byte{id}}))
		},
		"GetPendingMessages": func(ctx context.Context) error {
			return result(f.admin.GetPendingMessages(ctx, &serverpb.GetPendingMessagesRequest{ClientIds: [][]byte{id}, WantData: true}))
		},
		"GetPendingMessageCount": func(ctx context.Context) error {
			return result(f.admin.GetPendingMessageCount(ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: [][]byte{id}}))
		},
		"StoreFile": func(ctx context.Context) error {
			return result(f.admin.StoreFile(ctx, &serverpb.StoreFileRequest{ServiceName: "s", FileName: "f"}))
		},
		"DeleteFile": func(ctx context.Context) error {
			return result(f.admin.DeleteFile(ctx, &serverpb.DeleteFileRequest{ServiceName: "s", FileName: "f"}))
		},
		"BlacklistClient": func(ctx context.Context) error {
			return result(f.admin.BlacklistClient(ctx, &serverpb.BlacklistClientRequest{ClientId: id}))
		},
		"FetchClientResourceUsageRecords": func(ctx context.Context) error {
			return result(f.admin.FetchClientResourceUsageRecords(ctx, &serverpb.FetchClientResourceUsageRecordsRequest{
				ClientId: id, StartTimestamp: now, EndTimestamp: now,
			}))
		},
		"ListServers": func(ctx context.Context) error {
			return result(f.control.ListServers(ctx, &controlpb.ListServersRequest{}))
		},
		"ListClientServices": func(ctx context.Context) error {
			return result(f.control.ListClientServices(ctx, &controlpb.ListClientServicesRequest{ClientId: id}))
		},
		"BacklogStatus": func(ctx context.Context) error {
			return result(f.control.BacklogStatus(ctx, &controlpb.BacklogStatusRequest{}))
		},
		"ListDeadLetters": func(ctx context.Context) error {
			return result(f.control.ListDeadLetters(ctx, &controlpb.ListDeadLettersRequest{}))
		},
		"RetryDeadLetters": func(ctx context.Context) error {
			return result(f.control.RetryDeadLetters(ctx, &controlpb.RetryDeadLettersRequest{Service: "s"}))
		},
		"DeleteDeadLetters": func(ctx context.Context) error {
			return result(f.control.DeleteDeadLetters(ctx, &controlpb.DeleteDeadLettersRequest{Service: "s"}))
		},
	}
}

// What goes wrong in the store has the same code in every method, and wrapping does not hide it.
func TestCodesOfTheStore(t *testing.T) {
	tests := []struct {
		err   error
		code  codes.Code
		retry bool
	}{
		{store.ErrUnavailable, codes.Unavailable, true},
		{store.ErrSchema, codes.FailedPrecondition, false},
		{store.ErrInvalid, codes.InvalidArgument, false},
		{store.ErrConflict, codes.AlreadyExists, false},
		{store.ErrQueueFull, codes.ResourceExhausted, true},
		{context.DeadlineExceeded, codes.Unavailable, true}, // ours for the store, not the caller's
		{context.Canceled, codes.Unavailable, true},
		{errors.New("something else"), codes.Internal, false},
	}
	for _, test := range tests {
		t.Run(test.err.Error(), func(t *testing.T) {
			s := &failingStore{err: fmt.Errorf("store: method: %w", test.err)}
			f := serve(t, s, nil)
			for name, call := range f.calls() {
				s.calls.Store(0)
				err := call(t.Context())
				if status.Code(err) != test.code {
					t.Errorf("%s: %v, want %v", name, err, test.code)
				}
				if hasRetry(err) != test.retry {
					t.Errorf("%s: hint when to try again: %v, want %v", name, hasRetry(err), test.retry)
				}
				if s.calls.Load() == 0 {
					t.Errorf("%s did not ask the store", name)
				}
			}
		})
	}
}

func hasRetry(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if _, ok := detail.(*errdetails.RetryInfo); ok {
			return true
		}
	}
	return false
}

// An absent row is the answer of some methods, not their failure.
func TestCodesOfAbsentRows(t *testing.T) {
	f := serve(t, &failingStore{err: store.ErrNotFound}, nil)
	answer, err := f.admin.GetMessageStatus(t.Context(), &serverpb.GetMessageStatusRequest{MessageId: make([]byte, 32)})
	if err != nil || answer.CreationTime != nil {
		t.Errorf("status of the message 00…: %v, %v", answer, err)
	}
	answer, err = f.admin.GetMessageStatus(t.Context(), &serverpb.GetMessageStatusRequest{MessageId: identity.NewMessageID().Bytes()})
	if err != nil || answer.CreationTime != nil {
		t.Errorf("status of an unknown message: %v, %v", answer, err)
	}
}

// brokenStore dereferences nil in every method that a call reaches.
type brokenStore struct{ *failingStore }

func (brokenStore) Ping(context.Context) error { return nil }

// A panic ends its call and nothing else. G-01
func TestPanicsEndTheirCallOnly_G01(t *testing.T) {
	f := serve(t, brokenStore{}, nil)
	panics := 0.0
	for name, call := range f.calls() {
		if err := call(t.Context()); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v, want %v", name, err, codes.Internal)
		}
		panics++
	}
	if _, err := f.admin.KeepAlive(t.Context(), &fspb.EmptyMessage{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if got := f.metric("farspeak_admin_panics_total"); got != panics {
		t.Errorf("%v panics counted, want %v", got, panics)
	}
}

// metric sums the series of a name.
func (f *fixture) metric(name string) (total float64) {
	f.Helper()
	families, err := f.registry.Gather()
	f.must(err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.Metric {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}
