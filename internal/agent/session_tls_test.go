package agent_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
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
