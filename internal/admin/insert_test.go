package admin_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// pendingMessages is what waits for a client, with data.
func (f *fixture) pendingMessages(id identity.ClientID) []*fspb.Message {
	f.Helper()
	answer, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{
		ClientIds: [][]byte{id.Bytes()}, WantData: true,
	})
	f.must(err)
	return answer.Messages
}

func TestInsertMessage(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("server1:8080")
		full := message(id)
		full.Source.ClientId = identity.NewClientID().Bytes()
		full.SourceMessageId = []byte("a source ID that is longer than sixteen bytes")
		full.CreationTime = &timestamppb.Timestamp{Seconds: -5, Nanos: 7}
		full.ValidationInfo = &fspb.ValidationInfo{Tags: map[string]string{"k": "v"}}
		full.Annotations = &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}}}
		full.Priority, full.Background = fspb.Message_HIGH, true // G-39
		f.insert(full)
		if got := f.pendingMessages(id); len(got) != 1 || !proto.Equal(got[0], full) {
			f.Errorf("stored %v, want %v", got, full)
		}
		want := []hint{{"message", "server1:8080", []identity.ClientID{id}}}
		if got := f.hints.take(); !equalHints(got, want) {
			f.Errorf("told %v, want %v", got, want)
		}
	})
}

func equalHints(a, b []hint) bool {
	return slices.EqualFunc(a, b, func(a, b hint) bool {
		return a.kind == b.kind && a.address == b.address && slices.Equal(a.clients, b.clients)
	})
}

func TestInsertMessageFillsIn(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		m := message(id)
		m.MessageId, m.Data, m.MessageType = nil, nil, ""
		_, err := f.admin.InsertMessage(f.ctx, m)
		f.must(err)
		got := f.pendingMessages(id)
		if len(got) != 1 || len(got[0].MessageId) != identity.MessageIDSize || got[0].CreationTime.GetSeconds() == 0 {
			f.Errorf("stored %v, want an ID and a time", got)
		}
		if told := f.hints.take(); len(told) != 0 {
			f.Errorf("told %v of a client that is nowhere", told)
		}
	})
}

// An ID that is known is success and changes nothing: callers fix it before their first try and repeat.
func TestInsertMessageAgain(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("server1:8080")
		m := message(id)
		m.CreationTime = timestamppb.New(timestamppb.Now().AsTime())
		f.insert(m)
		changed := proto.CloneOf(m)
		changed.Data = payload("rm")
		f.hints.take()
		f.insert(changed)
		if got := f.pendingMessages(id); len(got) != 1 || !proto.Equal(got[0], m) {
			f.Errorf("stored %v, want the first payload", got)
		}
		if len(f.hints.take()) != 1 {
			f.Error("a repeat did not notify")
		}
		ref := store.MessageRef{ClientID: id, ID: identity.MessageID(m.MessageId)}
		_, err := f.real.AckMessages(f.ctx, []store.Ack{{MessageRef: ref}})
		f.must(err)
		f.insert(changed) // also after its completion
		if got := f.pendingMessages(id); len(got) != 0 {
			f.Errorf("a completed message waits again: %v", got)
		}
	})
}

// A preset result is cleared: it neither completes the message nor ends the process. G-58
func TestInsertMessageClearsTheResult_G58(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		for _, result := range []*fspb.MessageResult{
			{}, {Failed: true}, {Failed: true, ProcessedTime: timestamppb.Now()}, {ProcessedTime: timestamppb.Now()},
		} {
			for _, to := range []identity.ClientID{id, {}} {
				m := message(to)
				m.Result, m.IsBlocklistedSource = result, true
				f.insert(m)
				answer, err := f.admin.GetMessageStatus(f.ctx, &serverpb.GetMessageStatusRequest{MessageId: m.MessageId})
				f.must(err)
				if answer.CreationTime == nil || answer.Result != nil {
					f.Errorf("status %v, want pending", answer)
				}
			}
		}
		for _, m := range f.pendingMessages(id) {
			if m.Result != nil || m.IsBlocklistedSource || m.Data == nil {
				f.Errorf("stored %v", m)
			}
		}
	})
}

func TestInsertMessageForAService(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		m := message(identity.ClientID{})
		m.Data = &anypb.Any{TypeUrl: "x", Value: make([]byte, 3<<20)} // no client's limit
		id := f.insert(m)
		f.insert(m)
		claimed, err := f.real.ClaimBacklog(f.ctx, "server", []string{"shell"}, 10, deadline)
		f.must(err)
		if len(claimed) != 1 || claimed[0].ID != id || claimed[0].Attempts != 0 {
			f.Fatalf("claimed %v, want the message, due at once", claimed)
		}
		m.CreationTime = claimed[0].Message.CreationTime
		if !proto.Equal(claimed[0].Message, m) {
			f.Error("the message differs")
		}
		if told := f.hints.take(); len(told) != 0 {
			f.Errorf("told %v", told)
		}
	})
}

func TestInsertMessageRefuses(t *testing.T) {
	unknown := identity.NewClientID()
	tests := map[string]struct {
		change func(*fspb.Message)
		code   codes.Code
		text   string
	}{
		"no destination":         {func(m *fspb.Message) { m.Destination = nil }, codes.InvalidArgument, "message must have Destination"},
		"no destination service": {func(m *fspb.Message) { m.Destination.ServiceName = "" }, codes.InvalidArgument, "message must have Destination"},
		"no source":              {func(m *fspb.Message) { m.Source = nil }, codes.InvalidArgument, "message must have Source"},
		"no source service":      {func(m *fspb.Message) { m.Source.ServiceName = "" }, codes.InvalidArgument, "message must have Source"},
		"neither":                {func(m *fspb.Message) { m.Source, m.Destination = nil, nil }, codes.InvalidArgument, "message must have Destination"},
		"short message ID":       {func(m *fspb.Message) { m.MessageId = m.MessageId[1:] }, codes.InvalidArgument, "message ID of 31 bytes"},
		"long message ID":        {func(m *fspb.Message) { m.MessageId = append(m.MessageId, 1) }, codes.InvalidArgument, "message ID of 33 bytes"},
		"message ID of zeros":    {func(m *fspb.Message) { m.MessageId = make([]byte, 32) }, codes.InvalidArgument, "message ID of zeros"},
		"unknown client, zero ID": {func(m *fspb.Message) { m.Destination.ClientId, m.MessageId = unknown.Bytes(), make([]byte, 32) },
			codes.NotFound, "expected 1 destination client result, got 0"},
		"no seconds":         {func(m *fspb.Message) { m.CreationTime = &timestamppb.Timestamp{Nanos: 1} }, codes.InvalidArgument, "creation_time"},
		"bad nanos":          {func(m *fspb.Message) { m.CreationTime = &timestamppb.Timestamp{Seconds: 1, Nanos: -1} }, codes.InvalidArgument, "creation_time"},
		"short client ID":    {func(m *fspb.Message) { m.Destination.ClientId = []byte{1} }, codes.InvalidArgument, "client ID of 1 bytes"},
		"unknown client":     {func(m *fspb.Message) { m.Destination.ClientId = unknown.Bytes() }, codes.NotFound, "expected 1 destination client result, got 0"},
		"client ID of zeros": {func(m *fspb.Message) { m.Destination.ClientId = make([]byte, 8) }, codes.NotFound, "got 0: unknown client 0000000000000000"},
		"too large":          {func(m *fspb.Message) { m.Data.Value = make([]byte, 2<<20) }, codes.InvalidArgument, "exceeds the 2097152-byte limit"},
		"long service": {func(m *fspb.Message) { m.Destination.ServiceName = strings.Repeat("x", 129) },
			codes.InvalidArgument, "destination service"},
		// The original looks for the client before it looks at size and ID.
		"unknown client, too large": {func(m *fspb.Message) { m.Destination.ClientId, m.Data.Value = unknown.Bytes(), make([]byte, 2<<20) },
			codes.NotFound, "expected 1 destination client result, got 0"},
		"unknown client, bad ID": {func(m *fspb.Message) { m.Destination.ClientId, m.MessageId = unknown.Bytes(), []byte{1} },
			codes.NotFound, "expected 1 destination client result, got 0"},
		"short client ID, bad ID": {func(m *fspb.Message) { m.Destination.ClientId, m.MessageId = []byte{1}, []byte{1} },
			codes.InvalidArgument, "client ID of 1 bytes"},
		"too large, bad ID": {func(m *fspb.Message) { m.MessageId, m.Data.Value = []byte{1}, make([]byte, 2<<20) },
			codes.InvalidArgument, "exceeds the 2097152-byte limit"},
	}
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("server1:8080")
		for name, test := range tests {
			m := message(id)
			test.change(m)
			_, err := f.admin.InsertMessage(f.ctx, m)
			if status.Code(err) != test.code || !strings.Contains(status.Convert(err).Message(), test.text) {
				f.Errorf("%s: %v; want %v and %q", name, err, test.code, test.text)
			}
		}
		// For a service, a bad ID is all that can be wrong with one.
		m := message(identity.ClientID{})
		m.MessageId = []byte{1}
		_, err := f.admin.InsertMessage(f.ctx, m)
		wantCode(f, err, codes.InvalidArgument)
		if told := f.hints.take(); len(told) != 0 {
			f.Errorf("told %v", told)
		}
	})
}

// The limit counts the message as stored, with ID and time.
func TestInsertMessageAtTheLimit(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		m := message(id)
		m.CreationTime = timestamppb.Now()
		m.Data.Value = make([]byte, 2<<20)
		for proto.Size(m) > 2<<20 {
			m.Data.Value = m.Data.Value[1:]
		}
		f.insert(m)
		m.MessageId = identity.NewMessageID().Bytes()
		m.Data.Value = append(m.Data.Value, 0)
		_, err := f.admin.InsertMessage(f.ctx, m)
		wantCode(f, err, codes.InvalidArgument)
	})
}

func TestInsertMessageIntoAFullQueue(t *testing.T) {
	onEachStore(t, storetest.Options{MaxPendingPerClient: 3}, func(f *fixture) {
		full, other := f.register(""), f.register("")
		first := message(full)
		f.insert(first)
		var err error
		for range 50 { // the bound is approximate
			if _, err = f.admin.InsertMessage(f.ctx, message(full)); err != nil {
				break
			}
		}
		wantCode(f, err, codes.ResourceExhausted)
		var retry *errdetails.RetryInfo
		for _, detail := range status.Convert(err).Details() {
			retry, _ = detail.(*errdetails.RetryInfo)
		}
		if retry.GetRetryDelay().AsDuration() <= 0 {
			f.Errorf("no hint when to try again: %v", status.Convert(err).Details())
		}
		f.insert(message(other))
		f.insert(first) // known already
	})
}

// What one caller inserts call after call is delivered in that order.
func TestInsertMessageKeepsOrder(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		noise := f.register("")
		var others sync.WaitGroup
		ctx, cancel := context.WithCancel(f.ctx)
		for range 4 {
			others.Go(func() {
				for ctx.Err() == nil {
					_, _ = f.admin.InsertMessage(ctx, message(noise))
				}
			})
		}
		var want []identity.MessageID
		for range 60 {
			want = append(want, f.insert(message(id)))
		}
		cancel()
		others.Wait()
		due, err := f.real.DueMessages(f.ctx, []store.DueRequest{{ClientID: id, Limit: 100}})
		f.must(err)
		var got []identity.MessageID
		for _, m := range due[id].Messages {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, want) {
			f.Errorf("%d messages in another order", len(got))
		}
	})
}

// Many callers at once share transactions and notifications, and each gets its own answer. G-33
func TestInsertMessageByManyAtOnce_G33(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		known := []identity.ClientID{f.register("server1:8080"), f.register("server2:8080"), f.register("")}
		unknown := identity.NewClientID()
		const callers, calls = 40, 5
		var all sync.WaitGroup
		problems := make(chan error, callers*calls)
		for c := range callers {
			all.Go(func() {
				for range calls {
					to := append(known, unknown)[c%4]
					_, err := f.admin.InsertMessage(f.ctx, message(to))
					if want := map[bool]codes.Code{true: codes.NotFound}[to == unknown]; status.Code(err) != want {
						problems <- fmt.Errorf("caller %d: %w, want %v", c, errors.Join(err), want)
					}
				}
			})
		}
		all.Wait()
		close(problems)
		for err := range problems {
			f.Error(err)
		}
		for _, id := range known {
			if got := len(f.pendingMessages(id)); got != callers/4*calls {
				f.Errorf("%d messages for %v, want %d", got, id, callers/4*calls)
			}
		}
		woken := make(map[string]int)
		for _, h := range f.hints.take() {
			woken[h.address] += len(h.clients)
		}
		if woken["server1:8080"] != callers/4*calls || woken["server2:8080"] != callers/4*calls || len(woken) != 2 {
			f.Errorf("woken: %v", woken)
		}
	})
}

// A caller that leaves while its message waits does not make the others wait, or fail.
func TestInsertMessageOfACallerThatLeaves(t *testing.T) {
	gate := newGatedStore(storetest.NewSQLite(t))
	f := serve(t, gate, nil)
	f.real = gate.realStore
	id := f.register("")
	var callers sync.WaitGroup
	callers.Go(func() {
		if _, err := f.admin.InsertMessage(t.Context(), message(id)); err != nil {
			t.Error(err)
		}
	})
	receive(t, gate.entered)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := f.admin.InsertMessage(ctx, message(id))
		left <- err
	}()
	cancel()
	wantCode(t, receive(t, left), codes.Canceled)
	close(gate.proceed)
	callers.Wait()
	f.insert(message(id))
}

// gatedStore holds up inserts.
type gatedStore struct {
	realStore
	entered, proceed chan struct{}
}

func newGatedStore(s realStore) *gatedStore {
	return &gatedStore{s, make(chan struct{}, 100), make(chan struct{})}
}

func (g *gatedStore) InsertMessages(ctx context.Context, messages []*fspb.Message) ([]store.InsertOutcome, error) {
	g.entered <- struct{}{}
	select {
	case <-g.proceed:
		return g.realStore.InsertMessages(ctx, messages)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
