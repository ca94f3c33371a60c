package services_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// report returns a message of clientA's agent to the system service.
func report(t testing.TB, kind string, data proto.Message) *fspb.Message {
	t.Helper()
	m := message(clientA, "system", 1)
	m.Source.ServiceName = "system"
	m.MessageType = kind
	m.Data = nil
	if data != nil {
		packed, err := anypb.New(data)
		if err != nil {
			t.Fatal(err)
		}
		m.Data = packed
	}
	return m
}

func systemBatch(m *fspb.Message) services.Batch {
	return services.Batch{ClientID: clientA, Messages: []*fspb.Message{m}}
}

func knownClientA() *fakeStore {
	st := newFakeStore()
	st.clients[clientA] = &store.Client{ID: clientA}
	return st
}

func TestSystemRefuses(t *testing.T) {
	good := identity.NewMessageID().Bytes()
	for _, tc := range []struct {
		name, want string
		message    func(t *testing.T) *fspb.Message
	}{
		{"another source service", `from service "Agent"`, func(t *testing.T) *fspb.Message { // G-45
			m := report(t, "ClientInfo", &fspb.ClientInfoData{})
			m.Source.ServiceName = "Agent"
			return m
		}},
		{"no data", "no Data present", func(t *testing.T) *fspb.Message { return report(t, "MessageAck", nil) }},
		{"unknown type", "unknown system message type: Whatever", func(t *testing.T) *fspb.Message {
			return report(t, "Whatever", &fspb.MessageAckData{})
		}},
		{"wrong payload type", "MessageAck", func(t *testing.T) *fspb.Message { return report(t, "MessageAck", &fspb.MessageErrorData{}) }},
		{"garbage", "ResourceUsage", func(t *testing.T) *fspb.Message {
			m := report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{})
			m.Data.Value = []byte{0xff, 0xff, 0xff}
			return m
		}},
		{"ack of a wrong length", "31 bytes", func(t *testing.T) *fspb.Message {
			return report(t, "MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{good, good[:31]}})
		}},
		{"error of a wrong length", "5 bytes", func(t *testing.T) *fspb.Message {
			return report(t, "MessageError", &fspb.MessageErrorData{MessageId: good[:5]})
		}},
		{"usage without a time", "data_timestamp", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{})
		}},
		{"usage at no time", "data_timestamp", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{DataTimestamp: &timestamppb.Timestamp{Nanos: -1}})
		}},
		{"usage since no time", "process_start_time", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{
				DataTimestamp: timestamppb.Now(), ProcessStartTime: &timestamppb.Timestamp{Seconds: math.MaxInt64},
			})
		}},
		{"usage of NaN", "finite", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{
				DataTimestamp: timestamppb.Now(), ResourceUsage: &monitoringpb.AggregatedResourceUsage{MeanUserCpuRate: math.NaN()},
			})
		}},
		{"usage past float32", "finite", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{
				DataTimestamp: timestamppb.Now(), ResourceUsage: &monitoringpb.AggregatedResourceUsage{MaxSystemCpuRate: 1e300},
			})
		}},
		{"usage of a long scope", "scope", func(t *testing.T) *fspb.Message {
			return report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{DataTimestamp: timestamppb.Now(), Scope: strings.Repeat("x", 1000)})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := knownClientA()
			m := newManager(t, services.Config{Store: st})
			msg := tc.message(t)
			if err := m.Ingest(t.Context(), systemBatch(msg)); err != nil {
				t.Fatal(err)
			}
			if got := st.dead[idOf(msg)]; !strings.Contains(got.Reason, tc.want) {
				t.Errorf("reason %q, want one that contains %q", got.Reason, tc.want)
			}
			if len(st.acks)+len(st.infos)+len(st.usage) != 0 {
				t.Error("a refused report had an effect")
			}
		})
	}
}

func TestAcks(t *testing.T) { // G-19
	st := knownClientA()
	foreign, known := identity.NewMessageID(), identity.NewMessageID()
	st.ackAnswer = func(a store.Ack) error {
		if a.ID == foreign {
			return fmt.Errorf("fake: %w", store.ErrNotFound)
		}
		return nil
	}
	m := newManager(t, services.Config{Store: st, KeepResults: true})
	msg := report(t, "MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{foreign.Bytes(), nil, {}, known.Bytes()}})
	if err := m.Ingest(t.Context(), systemBatch(msg)); err != nil {
		t.Fatal(err)
	}
	want := []store.Ack{{MessageRef: store.MessageRef{ClientID: clientA, ID: known}}}
	if !slices.Equal(st.acks, want) {
		t.Errorf("acks %v, want %v", st.acks, want)
	}
	if waiting, dead := st.counts(); waiting+dead+len(st.results) != 0 {
		t.Error("a completed system message left a trace in the store") // G-21
	}
}

func TestManyAcks(t *testing.T) {
	st := knownClientA()
	m := newManager(t, services.Config{Store: st})
	var ids [][]byte
	for range 1700 {
		ids = append(ids, identity.NewMessageID().Bytes())
	}
	if err := m.Ingest(t.Context(), systemBatch(report(t, "MessageAck", &fspb.MessageAckData{MessageIds: ids}))); err != nil {
		t.Fatal(err)
	}
	if len(st.acks) != 1700 || st.called("AckMessages") != 4 {
		t.Errorf("%d acks in %d calls, want 1700 in 4", len(st.acks), st.called("AckMessages"))
	}
}

func TestAcksOfManyClientsShareCommits(t *testing.T) {
	st := knownClientA()
	m := newManager(t, services.Config{Store: st})
	b := services.Batch{ClientID: clientA}
	for n := range 100 {
		msg := report(t, "MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{identity.NewMessageID().Bytes()}})
		msg.MessageId = identity.MessageIDFor(clientA, "system", []byte{byte(n)}).Bytes()
		b.Messages = append(b.Messages, msg)
	}
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if len(st.acks) != 100 {
		t.Errorf("%d acks, want 100", len(st.acks))
	}
}

func TestMessageError(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  error
		id      []byte
		acks    int
		dead    int
		waiting int
	}{
		{name: "stored", id: identity.NewMessageID().Bytes(), acks: 1},
		{name: "of nothing", id: nil},
		{name: "foreign", id: identity.NewMessageID().Bytes(), answer: store.ErrNotFound, dead: 1},
		{name: "store fault", id: identity.NewMessageID().Bytes(), answer: errFlaky, waiting: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := knownClientA()
			st.ackAnswer = func(store.Ack) error { return tc.answer }
			m := newManager(t, services.Config{Store: st})
			text := strings.Repeat("very ", 500) + "bad"
			if err := m.Ingest(t.Context(), systemBatch(report(t, "MessageError", &fspb.MessageErrorData{MessageId: tc.id, Error: text}))); err != nil {
				t.Fatal(err)
			}
			waiting, dead := st.counts()
			if len(st.acks) != tc.acks || dead != tc.dead || waiting != tc.waiting {
				t.Fatalf("acks %d, dead %d, backlog %d; want %d, %d, %d", len(st.acks), dead, waiting, tc.acks, tc.dead, tc.waiting)
			}
			if tc.acks > 0 && (!st.acks[0].Failed || st.acks[0].Reason != text) {
				t.Errorf("ack %+v, want the whole text", st.acks[0])
			}
		})
	}
}

func TestClientInfo(t *testing.T) { // G-47
	st := knownClientA()
	type change struct {
		id     identity.ClientID
		labels []store.Label
	}
	changes := make(chan change, 10)
	m := newManager(t, services.Config{Store: st, Hooks: services.Hooks{
		LabelsChanged: func(id identity.ClientID, labels []store.Label) { changes <- change{id, labels} },
	}})
	data := &fspb.ClientInfoData{
		Labels: []*fspb.Label{
			{ServiceName: "client", Label: "linux"}, {ServiceName: "Other", Label: "foreign"}, {ServiceName: "client", Label: ""},
			{ServiceName: "client", Label: strings.Repeat("x", 1000)}, {ServiceName: "client", Label: "amd64"},
		},
		Services: []*fspb.ClientInfoData_ServiceID{{Name: "GRR", Signature: []byte("sig")}, {Name: ""}, {Name: "Shell"}},
	}
	if err := m.Ingest(t.Context(), systemBatch(report(t, "ClientInfo", data))); err != nil {
		t.Fatal(err)
	}
	if len(st.infos) != 1 {
		t.Fatalf("%d reports stored, want 1", len(st.infos))
	}
	info := st.infos[0]
	if info.ClientID != clientA || !slices.Equal(info.Labels, []string{"linux", "amd64"}) || len(info.Services) != 2 ||
		info.Services[0].Name != "GRR" || string(info.Services[0].Signature) != "sig" {
		t.Errorf("stored %+v", info)
	}
	got := <-changes
	if got.id != clientA || !slices.Equal(got.labels, []store.Label{{Service: "client", Label: "linux"}, {Service: "client", Label: "amd64"}}) {
		t.Errorf("hook was told %v", got)
	}

	delete(st.clients, clientA)
	if err := m.Ingest(t.Context(), systemBatch(report(t, "ClientInfo", data))); err != nil {
		t.Fatal(err)
	}
	if waiting, _ := st.counts(); waiting != 1 || len(changes) != 0 {
		t.Errorf("unknown client: backlog %d, hooks %d; want 1 and none", waiting, len(changes))
	}
}

func TestClientInfoIsBounded(t *testing.T) { // G-32
	st := knownClientA()
	m := newManager(t, services.Config{Store: st})
	data := &fspb.ClientInfoData{}
	for n := range 10_000 {
		data.Labels = append(data.Labels, &fspb.Label{ServiceName: "client", Label: fmt.Sprint("label", n)})
		data.Services = append(data.Services, &fspb.ClientInfoData_ServiceID{Name: fmt.Sprint("service", n)})
	}
	if err := m.Ingest(t.Context(), systemBatch(report(t, "ClientInfo", data))); err != nil {
		t.Fatal(err)
	}
	if got := st.infos[0]; len(got.Labels) != store.MaxLabels || len(got.Services) != store.MaxLabels {
		t.Errorf("%d labels, %d services", len(got.Labels), len(got.Services))
	}
}

func TestResourceUsage(t *testing.T) {
	started, now := timestamppb.New(time.Unix(100, 5)), timestamppb.New(time.Unix(200, 6))
	for _, tc := range []struct {
		name string
		data *monitoringpb.ResourceUsageData
		want store.ResourceUsage
	}{
		{"whole", &monitoringpb.ResourceUsageData{
			Scope: "GRR", Pid: 42, ProcessStartTime: started, DataTimestamp: now, ProcessTerminated: true, Version: "1.0",
			ResourceUsage: &monitoringpb.AggregatedResourceUsage{
				MeanUserCpuRate: 1.5, MaxUserCpuRate: 2.5, MeanSystemCpuRate: 3.5, MaxSystemCpuRate: 4.5,
				MeanResidentMemory: 2.9 * (1 << 20), MaxResidentMemory: 5<<20 - 1, MaxNumFds: 17, MeanNumFds: 8.9,
			},
		}, store.ResourceUsage{
			ClientID: clientA, Scope: "GRR", PID: 42, ProcessStart: started, ClientTime: now, Terminated: true,
			MeanUserCPU: 1.5, MaxUserCPU: 2.5, MeanSystemCPU: 3.5, MaxSystemCPU: 4.5,
			MeanResidentMiB: 2, MaxResidentMiB: 4, MeanFDs: 8, MaxFDs: 17,
		}},
		{"without numbers, G-01", &monitoringpb.ResourceUsageData{Scope: "system", ProcessStartTime: started, DataTimestamp: now},
			store.ResourceUsage{ClientID: clientA, Scope: "system", ProcessStart: started, ClientTime: now}},
		{"without start, G-26", &monitoringpb.ResourceUsageData{
			DataTimestamp: now, ResourceUsage: &monitoringpb.AggregatedResourceUsage{MaxNumFds: 1},
		}, store.ResourceUsage{ClientID: clientA, ClientTime: now, MaxFDs: 1}},
		{"beyond int32", &monitoringpb.ResourceUsageData{DataTimestamp: now, ResourceUsage: &monitoringpb.AggregatedResourceUsage{
			MeanResidentMemory: 1e30, MaxResidentMemory: math.MinInt64, MeanNumFds: -1e30,
		}}, store.ResourceUsage{ClientID: clientA, ClientTime: now, MeanResidentMiB: math.MaxInt32, MaxResidentMiB: math.MinInt32, MeanFDs: math.MinInt32}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := knownClientA()
			m := newManager(t, services.Config{Store: st})
			if err := m.Ingest(t.Context(), systemBatch(report(t, "ResourceUsage", tc.data))); err != nil {
				t.Fatal(err)
			}
			if len(st.usage) != 1 {
				t.Fatalf("%d records stored, dead letters %v", len(st.usage), st.dead)
			}
			got := st.usage[0]
			if !proto.Equal(got.ProcessStart, tc.want.ProcessStart) || !proto.Equal(got.ClientTime, tc.want.ClientTime) {
				t.Errorf("times %v, %v", got.ProcessStart, got.ClientTime)
			}
			got.ProcessStart, got.ClientTime = tc.want.ProcessStart, tc.want.ClientTime
			if got != tc.want {
				t.Errorf("stored %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestResourceUsageOfNobody(t *testing.T) {
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st})
	msg := report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{DataTimestamp: timestamppb.Now()})
	if err := m.Ingest(t.Context(), systemBatch(msg)); err != nil {
		t.Fatal(err)
	}
	if got := st.dead[idOf(msg)].Reason; !strings.Contains(got, "unknown client") {
		t.Errorf("reason %q", got)
	}
}

func TestSystemMessagesOutlastAStoreFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := knownClientA()
		st.downFor["AckMessages"] = true
		m := newManager(t, services.Config{Store: st})
		running(t, m)
		msg := report(t, "MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{identity.NewMessageID().Bytes()}})
		if err := m.Ingest(t.Context(), systemBatch(msg)); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		st.set(func() { st.downFor["AckMessages"] = false })
		pass(time.Minute)
		if waiting, dead := st.counts(); waiting+dead != 0 || len(st.acks) != 1 {
			t.Errorf("backlog %d, dead %d, acks %d", waiting, dead, len(st.acks))
		}
	})
}

func TestSystemMessagesEnd(t *testing.T) { // G-36
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore() // knows nobody
		m := newManager(t, services.Config{Store: st})
		running(t, m)
		if err := m.Ingest(t.Context(), systemBatch(report(t, "ClientInfo", &fspb.ClientInfoData{}))); err != nil {
			t.Fatal(err)
		}
		pass(24 * time.Hour)
		if waiting, dead := st.counts(); waiting != 0 || dead != 1 {
			t.Errorf("backlog %d, dead letters %d, want 0 and 1", waiting, dead)
		}
	})
}

// The hook hears of messages that are complete, and of no others.
func TestAcknowledgedHook(t *testing.T) {
	st := knownClientA()
	foreign, known, failed := identity.NewMessageID(), identity.NewMessageID(), identity.NewMessageID()
	st.ackAnswer = func(a store.Ack) error {
		if a.ID == foreign {
			return store.ErrNotFound
		}
		return nil
	}
	var told []store.MessageRef // by one worker
	m := newManager(t, services.Config{Store: st, Hooks: services.Hooks{
		Acknowledged: func(refs []store.MessageRef) { told = append(told, refs...) },
	}})
	for _, data := range []struct {
		kind string
		data proto.Message
	}{
		{"MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{foreign.Bytes(), known.Bytes()}}},
		{"MessageError", &fspb.MessageErrorData{MessageId: failed.Bytes(), Error: "it broke"}},
	} {
		if err := m.Ingest(t.Context(), systemBatch(report(t, data.kind, data.data))); err != nil {
			t.Fatal(err)
		}
	}
	want := []store.MessageRef{{ClientID: clientA, ID: known}, {ClientID: clientA, ID: failed}}
	if !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}
