package services_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// expect compares the counters and gauges of some names with their exposition, given without comments.
func expect(t *testing.T, reg *prometheus.Registry, lines string, names ...string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var head strings.Builder
	for _, f := range families {
		for _, name := range names {
			if f.GetName() == name {
				fmt.Fprintf(&head, "# HELP %s %s\n# TYPE %s %s\n", name, f.GetHelp(), name, strings.ToLower(f.GetType().String()))
			}
		}
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(head.String()+lines+"\n"), names...); err != nil {
		t.Error(err)
	}
}

// series returns the label names and the number of observations of a family, over all its series.
func series(t *testing.T, reg *prometheus.Registry, name string) (labels string, observations uint64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var names []string
			for _, l := range m.GetLabel() {
				names = append(names, l.GetName())
			}
			labels = strings.Join(names, " ")
			observations += m.GetHistogram().GetSampleCount()
			if m.GetCounter() != nil {
				observations += uint64(m.GetCounter().GetValue())
			}
		}
	}
	return labels, observations
}

func TestNamesOfTheOriginal(t *testing.T) {
	reg := prometheus.NewRegistry()
	st := knownClientA()
	s := newFakeService(func(_ context.Context, m *fspb.Message) error {
		switch string(m.SourceMessageId) {
		case "S-1":
			return errFlaky
		case "S-2":
			return services.Permanent(errNever)
		}
		return nil
	})
	busy := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
	m := newManager(t, services.Config{
		Store: st, Registerer: reg, ServiceBudget: 50 * time.Millisecond,
		Services: append(one("S", s), services.Spec{Name: "Busy", Service: busy, MaxParallelism: 1}),
	})
	b := batchOf("S", 3)
	b.Messages = append(b.Messages, message(clientA, "Busy", 1), message(clientA, "Busy", 2), message(clientA, "Nowhere", 1),
		report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{
			DataTimestamp: timestamppb.Now(), ResourceUsage: &monitoringpb.AggregatedResourceUsage{MaxNumFds: 1},
		}))
	kill := report(t, "KillNotification", &monitoringpb.KillNotification{Service: "GRR", Reason: monitoringpb.KillNotification_MEMORY_EXCEEDED})
	kill.MessageId = message(clientA, "system", 2).MessageId
	b.Messages = append(b.Messages, kill)
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	const usage = "fleetspeak_server_resource_usage_data_received_"
	for _, tc := range []struct {
		name, labels string
		atLeast      uint64
	}{
		{"fleetspeak_messages_ingested_total", "backlogged client_labels destination_service message_type source_service", 8},
		{"fleetspeak_messages_ingested_payload_bytes_size", "backlogged client_labels destination_service message_type source_service", 100},
		{"fleetspeak_messages_saved_total", "client_labels for_client message_type service", 5},
		{"fleetspeak_messages_saved_payload_bytes_size", "client_labels for_client message_type service", 50},
		{"fleetspeak_server_messages_processed_latency", "client_labels is_first_try message_type service", 3},
		{"fleetspeak_server_messages_errored_latency", "client_labels is_first_try is_temp message_type", 4},
		{"fleetspeak_server_messages_dropped_total", "client_labels is_first_try message_type service", 1},
		{usage + "total", "blacklisted client_data_labels scope version", 1},
		{usage + "mean_user_cpu_rate_distribution", "blacklisted client_data_labels scope version", 1},
		{usage + "max_user_cpu_rate_distribution", "blacklisted client_data_labels scope version", 1},
		{usage + "mean_system_cpu_rate_distribution", "blacklisted client_data_labels scope version", 1},
		{usage + "max_system_cpu_rate", "blacklisted client_data_labels scope version", 1},
		{usage + "mean_resident_memory_bytes_distribution", "blacklisted client_data_labels scope version", 1},
		{usage + "max_resident_memory_bytes_distribution", "blacklisted client_data_labels scope version", 1},
		{"fleetspeak_server_kill_notifications_received_total", "blacklisted client_data_labels reason service", 1},
	} {
		labels, n := series(t, reg, tc.name)
		if labels != tc.labels || n < tc.atLeast {
			t.Errorf("%s{%s} has %d observations; want {%s} and at least %d", tc.name, labels, n, tc.labels, tc.atLeast)
		}
	}
	expect(t, reg, `fleetspeak_server_kill_notifications_received_total{blacklisted="false",client_data_labels="",reason="MEMORY_EXCEEDED",service="GRR"} 1`,
		"fleetspeak_server_kill_notifications_received_total")
	expect(t, reg, `farspeak_dead_letters_total{service="Busy"} 0
farspeak_dead_letters_total{service="S"} 1
farspeak_dead_letters_total{service="other"} 1
farspeak_dead_letters_total{service="system"} 0`, "farspeak_dead_letters_total")
	expect(t, reg, `fleetspeak_server_messages_dropped_total{client_labels="",is_first_try="true",message_type="Report",service="Busy"} 1`,
		"fleetspeak_server_messages_dropped_total")
}

func TestClientsCannotMakeSeries(t *testing.T) {
	reg := prometheus.NewRegistry()
	st := knownClientA()
	m := newManager(t, services.Config{Store: st, Registerer: reg, Services: []services.Spec{{Name: "N", Factory: services.FactoryNOOP}}})
	b := services.Batch{ClientID: clientA, ClientLabels: []store.Label{{Service: "client", Label: "secret"}}}
	for n := range 3000 {
		msg := message(clientA, "N", n)
		msg.MessageType = fmt.Sprint("type", n)
		msg.Source.ServiceName = fmt.Sprint("source", n)
		b.Messages = append(b.Messages, msg)
	}
	b.Messages = append(b.Messages, message(clientA, strings.Repeat("y", 5000), 1), message(clientA, "\xff\xfe", 2))
	b.Messages[1].MessageType = "\xff"
	b.Messages[2].MessageType = strings.Repeat("z", 5000)
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		usage := report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{DataTimestamp: timestamppb.Now(), Scope: fmt.Sprint("s", n), Version: fmt.Sprint("v", n)})
		kill := report(t, "KillNotification", &monitoringpb.KillNotification{Service: fmt.Sprint("s", n), Reason: monitoringpb.KillNotification_Reason(n)})
		usage.MessageId, kill.MessageId = message(clientA, "u", n).MessageId, message(clientA, "k", n).MessageId
		if err := m.Ingest(t.Context(), services.Batch{ClientID: clientA, Messages: []*fspb.Message{usage, kill}}); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); n > 1100 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				if len(l.GetValue()) > 64 || strings.Contains(l.GetValue(), "secret") {
					t.Errorf("%s has %s=%.80q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	if _, n := series(t, reg, "fleetspeak_messages_ingested_total"); n != 5002 {
		t.Errorf("%d messages counted, want 5002", n)
	}
}

func TestAllowedClientLabels(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newManager(t, services.Config{
		Store: knownClientA(), Registerer: reg, Services: []services.Spec{{Name: "N", Factory: services.FactoryNOOP}},
		MetricLabels: []string{"linux", "client:amd64"},
	})
	b := batchOf("N", 1)
	b.Messages = append(b.Messages, report(t, "KillNotification", &monitoringpb.KillNotification{Service: "GRR"}))
	b.ClientLabels = []store.Label{
		{Service: "client", Label: "linux"}, {Service: "other", Label: "amd64"}, {Service: "client", Label: "amd64"}, {Service: "client", Label: "name-of-host"},
	}
	b.Blacklisted = true
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	const labels = `client_labels="client:amd64,client:linux"`
	expect(t, reg, `fleetspeak_messages_ingested_total{backlogged="false",`+labels+`,destination_service="N",message_type="Report",source_service="Agent"} 1
fleetspeak_messages_ingested_total{backlogged="false",`+labels+`,destination_service="system",message_type="KillNotification",source_service="system"} 1
fleetspeak_messages_ingested_total{backlogged="true",`+labels+`,destination_service="N",message_type="Report",source_service="Agent"} 0
fleetspeak_messages_ingested_total{backlogged="true",`+labels+`,destination_service="system",message_type="KillNotification",source_service="system"} 0`,
		"fleetspeak_messages_ingested_total")
	expect(t, reg, `fleetspeak_server_kill_notifications_received_total{blacklisted="true",client_data_labels="amd64,linux",reason="UNSPECIFIED",service="GRR"} 1`,
		"fleetspeak_server_kill_notifications_received_total")
}

func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		st := newFakeStore()
		s := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		m := newManager(t, services.Config{Store: st, Services: one("S", s), Registerer: reg, CircuitOpenFor: time.Hour})
		st.put(time.Now().Add(time.Hour), batchOf("S", 7).Messages...)
		st.put(time.Now().Add(time.Hour), message(clientA, "Elsewhere", 1))
		running(t, m)
		ingested := make(chan error)
		go func() {
			b := services.Batch{ClientID: clientA}
			for n := range 5 {
				b.Messages = append(b.Messages, message(clientA, "S", 100+n))
			}
			ingested <- m.Ingest(t.Context(), b)
		}()
		synctest.Wait()
		expect(t, reg, `farspeak_backlog_depth{service="S"} 7
farspeak_backlog_depth{service="other"} 1
farspeak_backlog_depth{service="system"} 0`, "farspeak_backlog_depth")
		expect(t, reg, `farspeak_backlog_oldest_age_seconds{service="S"} 60
farspeak_backlog_oldest_age_seconds{service="other"} 60
farspeak_backlog_oldest_age_seconds{service="system"} 0`, "farspeak_backlog_oldest_age_seconds")
		expect(t, reg, `farspeak_service_inflight{service="S"} 5
farspeak_service_inflight{service="system"} 0`, "farspeak_service_inflight")
		if err := <-ingested; err != nil {
			t.Fatal(err)
		}
		expect(t, reg, `farspeak_service_circuit_open{service="S"} 1
farspeak_service_circuit_open{service="system"} 0`, "farspeak_service_circuit_open")
	})
}
