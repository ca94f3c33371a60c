package agent_test

import (
	"bytes"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func TestTLSSessionIsResumed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	s.open().finish()
	if n := s.open(); !n.attempt.resumed {
		t.Error("a full handshake for the second session")
	}
}

// With servers that open each other's tickets a resumed session is spared the costly half of the key exchange. A ticket that is
// not opened after all costs nothing but another handshake at once.
func TestSharedTickets(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.header.Set(wire.FeaturesHeader, wire.Features(wire.FeatureOrderedAcks, wire.FeatureSharedTickets))
	r := start(t, s, nil)
	first := s.open()
	first.finish()
	second := s.open()
	if a := second.attempt; !a.resumed || a.curve != tls.CurveP256 {
		t.Errorf("second session: resumed %t, keys by %v", a.resumed, a.curve)
	}
	s.http.TLS.SetSessionTicketKeys([][32]byte{{1}})
	second.finish()
	for name, n := range map[string]*fakeSession{"first": first, "third": s.open()} {
		if a := n.attempt; a.resumed || a.curve != tls.X25519MLKEM768 {
			t.Errorf("%s session: resumed %t, keys by %v", name, a.resumed, a.curve)
		}
	}
	if e := r.agent.Status().Link.LastError; strings.Contains(e, "TLS") {
		t.Errorf("the agent complains of the handshake: %s", e)
	}
}

// Agents that poll make a connection for most polls.
func TestSharedTicketsOfPolls(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.header.Set(wire.FeaturesHeader, wire.FeatureSharedTickets)
	s.header.Set("Connection", "close")
	start(t, s, polling, "echo")
	first := s.nextPoll()
	message := toClient(t, first.id, "echo", "hello", nil) // whose acknowledgement does not wait for long
	first.answer <- &fspb.ContactData{SequencingNonce: 1, Messages: []*fspb.Message{message}}
	second := s.nextPoll()
	second.answer <- &fspb.ContactData{SequencingNonce: 2}
	if a := first.attempt; a.resumed || a.curve != tls.X25519MLKEM768 {
		t.Errorf("first poll: resumed %t, keys by %v", a.resumed, a.curve)
	}
	if a := second.attempt; !a.resumed || a.curve != tls.CurveP256 {
		t.Errorf("second poll: resumed %t, keys by %v", a.resumed, a.curve)
	}
}

func TestRevokedServerIsLeft(t *testing.T) { // G-52
	t.Parallel()
	s := newFakeServer(t)
	list, err := proto.Marshal(&fspb.RevokedCertificateList{Serials: [][]byte{s.serial.Bytes()}})
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	s.files["/files/system/RevokedCertificates"] = list
	r := start(t, s, func(c *agent.Config) { c.State = agent.FileState(state) })
	s.open()
	waitUntil(t, func() bool { return bytes.Contains([]byte(r.agent.Status().Link.LastError), []byte("revoked")) })
	waitUntil(t, func() bool { return bytes.Contains(mustRead(t, state), s.serial.Bytes()) })
	if got := s.requests("/files/system/RevokedCertificates"); len(got) != 1 || len(got[0].header.Values("X-Fleetspeak-Labels")) != 3 {
		t.Errorf("requests are %v", got)
	}
}

func TestUntrustedServerIsRefused(t *testing.T) {
	t.Parallel()
	s, other := newFakeServer(t), newFakeServer(t)
	r := start(t, s, func(c *agent.Config) { c.Link.Roots = other.roots() })
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
	if got := s.requests("/streaming-message"); len(got) != 0 {
		t.Errorf("%d requests were made", len(got))
	}
}

func TestServerName(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, func(c *agent.Config) { c.Link.ServerName = "fleet.test" })
	s.open()
	waitUntil(t, func() bool { return r.agent.Status().Link.Server == s.address() })

	r = start(t, s, func(c *agent.Config) { c.Link.ServerName = "other.test" })
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
}
