package server_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Headers of the agreement on a session's lifetime.
const (
	agentHeader    = "Farspeak-Agent"
	lifetimeHeader = "Farspeak-Session-Lifetime"
)

// Lifetimes are spread, so that a fleet which connected at once does not come back at once (G-25). Only agents that leave
// the end to the server are promised one.
func TestLifetimesAreSpread(t *testing.T) {
	const short, long = 10 * time.Minute, 4 * time.Hour
	f := start(t, withLifetime(short), withLongLifetime(long))
	for name, test := range map[string]struct {
		request  http.Header
		most     time.Duration
		promised bool
	}{
		"the original": {http.Header{}, short, false},
		"ours":         {http.Header{agentHeader: {"1.0"}}, long, true},
	} {
		t.Run(name, func(t *testing.T) {
			var lifetimes []time.Duration
			for range 1000 {
				length, promised := server.Lifetime(f.server, test.request)
				if promised != 0 && promised != length || (promised != 0) != test.promised {
					t.Fatalf("a session of %v is promised %v", length, promised)
				}
				lifetimes = append(lifetimes, length)
			}
			shortest, longest := slices.Min(lifetimes), slices.Max(lifetimes)
			if shortest < test.most*4/5 || longest > test.most {
				t.Errorf("lifetimes from %v to %v, want 4/5 of %v at least", shortest, longest, test.most)
			}
			if longest-shortest < test.most/6 {
				t.Errorf("lifetimes from %v to %v are not spread", shortest, longest)
			}
		})
	}
}

func withLongLifetime(lifetime time.Duration) func(*server.Config) {
	return func(c *server.Config) { c.LongStreamLifetime = lifetime }
}

// A session that was promised a long life has it, and is told to leave just before its end.
func TestPromisedLifetimeIsKept(t *testing.T) {
	const most = time.Hour
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipeWith(l, agentHeader+": 1.0\r\n", agent.first(&fspb.ContactData{}))
		stream.status()
		started := time.Now()
		promised := lifetimeIn(t, stream.response.Header)
		if promised < most*4/5 || promised > most {
			t.Errorf("promised %v of at most %v", promised, most)
		}
		stream.next()
		if got := stream.next(); !got.DoneSending {
			t.Fatalf("got %v, want done_sending", got)
		}
		if told := time.Since(started); told < promised-32*time.Second || told > promised-28*time.Second {
			t.Errorf("told to leave after %v of %v", told, promised)
		}
		stream.ended()
	}, withLifetime(10*time.Minute), withLongLifetime(most))
}

// lifetimeIn is what the header of an answer promises; 0 is nothing.
func lifetimeIn(t *testing.T, header http.Header) time.Duration {
	t.Helper()
	value := header.Get(lifetimeHeader)
	if value == "" {
		return 0
	}
	seconds, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds) * time.Second
}

// The original's agents get the answer that they always got, on either version of HTTP.
func TestOnlyOursArePromisedALifetime(t *testing.T) {
	f := start(t)
	original, ours := newTestAgent(t, f.address), newTestAgent(t, f.address)
	stream, _ := original.session(&fspb.ContactData{})
	if got := lifetimeIn(t, stream.response.Header); got != 0 {
		t.Errorf("the original is promised %v", got)
	}
	_, response := original.openHTTP2(original.http2Client(original.loopback), nil, original.first(&fspb.ContactData{}))
	if got := lifetimeIn(t, response.Header); got != 0 {
		t.Errorf("the original is promised %v over HTTP/2", got)
	}
	_, response = ours.openHTTP2(ours.http2Client(ours.loopback), http.Header{agentHeader: {"1.0"}}, ours.first(&fspb.ContactData{}))
	if got := lifetimeIn(t, response.Header); got < time.Hour {
		t.Errorf("ours is promised %v over HTTP/2, want the default of hours", got)
	}
}

// A server that ends TLS itself says so of its tickets, in each way of answering.
func TestFeatures(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	_, http2 := agent.openHTTP2(agent.http2Client(agent.loopback), nil, agent.first(&fspb.ContactData{}))
	for name, header := range map[string]http.Header{"HTTP/1.1": stream.response.Header, "HTTP/2": http2.Header} {
		for _, feature := range []string{wire.FeatureOrderedAcks, wire.FeatureSharedTickets} {
			if !wire.HasFeature(header, feature) {
				t.Errorf("%s: no %s in %v", name, feature, header)
			}
		}
	}
	full, _ := newTestAgent(t, start(t, func(c *server.Config) { c.FullHandshakes = true }).address).session(&fspb.ContactData{})
	if header := full.response.Header; wire.HasFeature(header, wire.FeatureSharedTickets) || !wire.HasFeature(header, wire.FeatureOrderedAcks) {
		t.Errorf("a server that wants handshakes in full says %v", header)
	}
	want := `
		# HELP farspeak_session_handshakes_total Sessions over TLS by the handshake of their connection: whether it resumed an earlier one, and how keys were agreed.
		# TYPE farspeak_session_handshakes_total counter
		farspeak_session_handshakes_total{key_exchange="X25519MLKEM768",resumed="false"} 2
	`
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "farspeak_session_handshakes_total"); err != nil {
		t.Error(err)
	}
}
