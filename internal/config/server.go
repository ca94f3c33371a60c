package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// Server is what fs-server takes from the components file, defaults applied.
type Server struct {
	Listener      Listener
	Proxy         Proxy
	RequiredLabel string        // clients have to claim it; empty: none
	Notifications Notifications // hints coming in
	Notifier      Notifier      // hints going out
	StatsAddress  string        // host:port, empty: none
	HealthAddress string        // host:port, empty: none

	StreamLifetime     time.Duration // of sessions with the original's agents
	LongStreamLifetime time.Duration // of sessions with agents that let the server decide, as ours do
	SweepInterval      time.Duration
	RedeliveryInterval time.Duration
	ServiceBudget      time.Duration // for one message, before it goes to the backlog
	BacklogBudget      time.Duration // for one message of the backlog
	UnservedAfter      time.Duration // of a message of the backlog whose service no server has
	DrainTimeout       time.Duration

	MaxSessions                      int // 0: as many as the descriptor limit allows
	HandshakeConcurrency             int
	RegistrationsPerSecond           float64
	RegistrationsPerSecondPerAddress float64
	RecordMemoryBytes                int64
	MaxPushBytes                     int
	BacklogMaxMessages               uint64
	BacklogMaxAttempts               int // 0: no end

	FullHandshakes     bool // agents are not invited to leave ML-KEM out
	KeepServiceResults bool
	PermanentCodes     []uint32 // numbers of gRPC status codes
	MetricLabels       []string

	Warnings textpb.Problems
}

// Proxy is about PROXY protocol headers on the client listener.
type Proxy struct {
	Enabled        bool
	HeaderRequired bool
	TrustedSources []netip.Prefix // empty: everybody
	HeaderTimeout  time.Duration
}

// Server returns fs-server's part. The error has a line for each broken rule.
func (f *File) Server() (Server, error) {
	r := f.doc.NewReport()
	s := f.server(r, true)
	s.Warnings = r.Problems().Warnings()
	return s, r.Problems().Err()
}

func (f *File) server(r *textpb.Report, required bool) Server {
	pb := f.settings().GetServer()
	const at = "farspeak.server."
	s := Server{
		Listener:      f.listener(r, required),
		Proxy:         f.proxy(r),
		RequiredLabel: f.pb.GetRequiredLabel(),
		Notifications: f.notifications(r),
		Notifier:      f.notifier(r),
		StatsAddress:  optionalAddress(r, "stats_config.address", f.pb.GetStatsConfig().GetAddress()),
		HealthAddress: optionalAddress(r, "health_check_config.listen_address", f.pb.GetHealthCheckConfig().GetListenAddress()),

		StreamLifetime:     duration(r, at+"stream_lifetime", pb.GetStreamLifetime(), streamLifetime),
		LongStreamLifetime: duration(r, at+"long_stream_lifetime", pb.GetLongStreamLifetime(), longStreamLifetime),
		SweepInterval:      duration(r, at+"sweep_interval", pb.GetSweepInterval(), sweepInterval),
		RedeliveryInterval: duration(r, at+"redelivery_interval", pb.GetRedeliveryInterval(), redeliveryInterval),
		ServiceBudget:      duration(r, at+"service_budget", pb.GetServiceBudget(), serviceBudget),
		BacklogBudget:      duration(r, at+"backlog_budget", pb.GetBacklogBudget(), backlogBudget),
		UnservedAfter:      duration(r, at+"unserved_after", pb.GetUnservedAfter(), unservedAfter),
		DrainTimeout:       duration(r, at+"drain_timeout", pb.GetDrainTimeout(), drainTimeout),

		MaxSessions:                      int(number(r, at+"max_sessions", pb.GetMaxSessions(), maxSessions)),
		HandshakeConcurrency:             int(number(r, at+"handshake_concurrency", pb.GetHandshakeConcurrency(), handshakeConcurrency)),
		RegistrationsPerSecond:           number(r, at+"registrations_per_second", pb.GetRegistrationsPerSecond(), registrationsPerSecond),
		RegistrationsPerSecondPerAddress: number(r, at+"registrations_per_second_per_address", pb.GetRegistrationsPerSecondPerAddress(), registrationsPerSecondPerAddress),
		RecordMemoryBytes:                int64(number(r, at+"record_memory_bytes", pb.GetRecordMemoryBytes(), recordMemoryBytes)),
		MaxPushBytes:                     int(number(r, at+"max_push_bytes", pb.GetMaxPushBytes(), maxPushBytes)),
		BacklogMaxMessages:               number(r, at+"backlog_max_messages", pb.GetBacklogMaxMessages(), backlogMaxMessages),
		BacklogMaxAttempts:               int(number(r, at+"backlog_max_attempts", pb.GetBacklogMaxAttempts(), backlogMaxAttempts)),

		FullHandshakes:     pb.GetFullHandshakes(),
		KeepServiceResults: pb.GetKeepServiceResults(),
		PermanentCodes:     codes(r, at+"permanent_codes", pb.GetPermanentCodes()),
		MetricLabels:       labels(r, at+"metric_labels", pb.GetMetricLabels()),
	}
	if s.HandshakeConcurrency == 0 {
		s.HandshakeConcurrency = defaultHandshakes()
	}
	s.orderBudgets(r, pb.GetBacklogBudget() != nil)
	s.warn(r)
	return s
}

// orderBudgets sees that the backlog gives a service no less time than clients do.
func (s *Server) orderBudgets(r *textpb.Report, given bool) {
	if s.BacklogBudget >= s.ServiceBudget {
		return
	}
	if given {
		r.Error("farspeak.server.backlog_budget", fmt.Sprintf("%v is less than the service budget, %v", s.BacklogBudget, s.ServiceBudget),
			"write at least as much, or leave it out")
	}
	s.BacklogBudget = s.ServiceBudget
}

// warn tells of settings that are possible and unwise.
func (s *Server) warn(r *textpb.Report) {
	if s.StreamLifetime > longestAgentLife {
		r.Warn("farspeak.server.stream_lifetime", fmt.Sprintf("the original's agents hang up after %v themselves", longestAgentLife),
			"choose less")
	}
	if s.LongStreamLifetime < s.StreamLifetime {
		r.Warn("farspeak.server.long_stream_lifetime", "shorter than the lifetime of sessions with the original's agents", "choose more")
	}
	if s.RequiredLabel != strings.TrimSpace(s.RequiredLabel) {
		r.Warn("required_label", "begins or ends with space, and clients have to claim exactly that", "check the quotes")
	}
	if s.RedeliveryInterval < s.SweepInterval {
		r.Warn("farspeak.server.redelivery_interval", "shorter than the sweep interval, which decides then", "choose more")
	}
}

func (f *File) proxy(r *textpb.Report) Proxy {
	pb := f.settings().GetServer()
	const at = "farspeak.server."
	p := Proxy{
		Enabled:        f.pb.GetProxyProtocol(),
		HeaderRequired: pb.GetProxyHeaderRequired(),
		TrustedSources: prefixes(r, at+"proxy_trusted_sources", pb.GetProxyTrustedSources()),
		HeaderTimeout:  duration(r, at+"proxy_header_timeout", pb.GetProxyHeaderTimeout(), proxyHeaderTimeout),
	}
	for _, field := range []string{"proxy_trusted_sources", "proxy_header_required", "proxy_header_timeout"} {
		if !p.Enabled && f.doc.Has(at+field) {
			r.Warn(at+field, "without effect while PROXY headers are not expected", "add proxy_protocol: true")
		}
	}
	if p.Enabled && len(p.TrustedSources) == 0 {
		r.Warn("proxy_protocol", "whoever reaches the listener can claim any source address",
			"list the balancers in farspeak.server.proxy_trusted_sources")
	}
	return p
}

// optionalAddress checks a listen address that may be left out.
func optionalAddress(r *textpb.Report, field, value string) string {
	if value == "" {
		return ""
	}
	return listenAddress(r, field, value)
}

func labels(r *textpb.Report, field string, values []string) []string {
	for i, v := range values {
		if strings.TrimSpace(v) == "" {
			r.Error(fmt.Sprintf("%s[%d]", field, i), "blank", "write a label or remove the line")
		}
	}
	return slices.Clone(values)
}
