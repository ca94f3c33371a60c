package agent_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
)

func TestRekey(t *testing.T) { // G-12, G-53
	t.Parallel()
	s := newFakeServer(t)
	state := filepath.Join(t.TempDir(), "state")
	r := start(t, s, func(c *agent.Config) { c.State = agent.FileState(state) }, "echo")
	n := s.open()
	old := n.id
	records := n.ackAll()
	m := to(n, "system", "RekeyRequest", nil)
	n.push(m)
	// A batch that was under way may end the session before the acknowledgement is in the outbox; it then comes under the
	// new identity, which servers take for this request.
	acks := untilTheEnd(t, records, "MessageAck")
	next := s.open()
	infos := find(next.first, "ClientInfo")
	acks = append(acks, find(next.first, "MessageAck")...)
	for later := next.ackAll(); len(acks) == 0 || len(infos) == 0; {
		r := receive(t, later, "a record of the next session")
		acks, infos = append(acks, find(r, "MessageAck")...), append(infos, find(r, "ClientInfo")...)
	}
	if ids := acked(t, acks[0]); len(acks) != 1 || len(ids) != 1 || !bytes.Equal(ids[0], m.MessageId) {
		t.Errorf("%d acks, the first of %x", len(acks), ids)
	}
	if next.id == old || next.id != r.agent.ID() {
		t.Errorf("the next session is of client %v, it was %v, the agent says %v", next.id, old, r.agent.ID())
	}
	if len(infos) != 1 {
		t.Errorf("%d times ClientInfo, want one", len(infos))
	}
	if next.first.data.SequencingNonce != 7 {
		t.Errorf("the nonce is %d", next.first.data.SequencingNonce)
	}
	if next.attempt.resumed {
		t.Error("a TLS session of the old key was resumed")
	}
	kept := &clientpb.ClientState{}
	if err := proto.Unmarshal(mustRead(t, state), kept); err != nil {
		t.Fatal(err)
	}
	if len(kept.ClientKey) == 0 {
		t.Error("no key in the state file")
	}
	r.stop()
	if err := r.exit(); err != nil {
		t.Fatal(err)
	}
	again := start(t, s, func(c *agent.Config) { c.State = agent.FileState(state) })
	if again.agent.ID() != next.id {
		t.Errorf("after a restart the client is %v, it was %v", again.agent.ID(), next.id)
	}
}

func TestDie(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		s := newFakeServer(t)
		r := start(t, s, nil, "echo")
		n := s.open()
		records := n.ackAll()
		n.push(to(n, "system", "Die", &fspb.DieRequest{Force: force}))
		if err := r.exit(); !errors.Is(err, agent.ErrDie) {
			t.Errorf("force %t: ended with %v", force, err)
		}
		closed(t, r.probe("echo").stopped, "the stop of the service")
		n.finish()
		for rec := range records {
			if len(find(rec, "MessageAck"))+len(find(rec, "MessageError")) > 0 {
				t.Errorf("force %t: the request was answered: %v", force, rec.data.Messages)
			}
		}
	}
}

func TestDieWithoutPayloadIsIgnored(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	later := to(n, "echo", "later", nil)
	n.push(to(n, "system", "Die", nil), later)
	if ids := acked(t, await(t, records, "MessageAck")); len(ids) != 1 || !bytes.Equal(ids[0], later.MessageId) {
		t.Errorf("acks of %x", ids)
	}
}

func TestRestartService(t *testing.T) { // G-24, G-62
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	first := r.probe("echo")
	n.push(to(n, "echo", "before", nil))
	receive(t, first.messages, "the first message")
	await(t, records, "MessageAck")

	n.push(to(n, "system", "RestartService", &fspb.RestartServiceRequest{Name: "echo"}), to(n, "echo", "after", nil))
	closed(t, first.stopped, "the stop of the first instance")
	total := map[string]uint64{}
	for seen := 0; seen < 2; {
		rec := receive(t, records, "acks")
		for name, n := range rec.data.AllowedMessages {
			if n > 100 {
				t.Errorf("increment of %s is %d", name, int64(n))
			}
			total[name] += n
		}
		for _, m := range find(rec, "MessageAck") {
			seen += len(acked(t, m))
		}
	}
	if want := map[string]uint64{"echo": 1, "system": 1}; !maps.Equal(total, want) {
		t.Errorf("tokens returned after the restart: %v, want %v", total, want)
	}
	if second := r.probe("echo"); second == first || len(first.messages)+len(second.messages) != 1 {
		t.Errorf("the message sent during the restart was processed %d times", len(first.messages)+len(second.messages))
	}
}

func TestRestartOfWhatCannotRestart(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	for _, name := range []string{"walrus", "system", "client", ""} {
		m := to(n, "system", "RestartService", &fspb.RestartServiceRequest{Name: name})
		n.push(m)
		failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
		if !bytes.Equal(failure.MessageId, m.MessageId) || failure.Error == "" {
			t.Errorf("%q: error is %v", name, failure)
		}
	}
	r.mu.Lock()
	r.broken = true
	r.mu.Unlock()
	n.push(to(n, "system", "RestartService", &fspb.RestartServiceRequest{Name: "echo"}))
	var infos, failures []*fspb.Message
	for len(infos) == 0 || len(failures) == 0 {
		rec := receive(t, records, "ClientInfo and MessageError")
		infos = append(infos, find(rec, "ClientInfo")...)
		failures = append(failures, find(rec, "MessageError")...)
	}
	if info := unpack(t, infos[0], &fspb.ClientInfoData{}); len(info.Services) != 0 {
		t.Errorf("the service that did not start again is reported: %v", info.Services)
	}
}

func TestUnknownSystemMessage(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	n := s.open()
	records := n.ackAll()
	n.push(to(n, "system", "RemoveService", &fspb.RemoveServiceData{Name: "echo"}))
	failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
	if failure.Error != "unable to process message of type: RemoveService" {
		t.Errorf("error is %q", failure.Error)
	}
}

// A service that is not there is reported at once; and neither that nor anything else is executed or tried twice.
func TestUnknownServiceAndRepeats(t *testing.T) { // G-38
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	unknown := to(n, "walrus", "hello", nil)
	for range 2 {
		n.push(unknown)
		failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
		if !bytes.Equal(failure.MessageId, unknown.MessageId) || !strings.Contains(failure.Error, "walrus") {
			t.Errorf("error is %v", failure)
		}
	}
	good := to(n, "echo", "hello", nil)
	for range 3 {
		n.push(good)
		if ids := acked(t, await(t, records, "MessageAck")); len(ids) != 1 || !bytes.Equal(ids[0], good.MessageId) {
			t.Errorf("acks of %x", ids)
		}
	}
	if got := len(r.probe("echo").messages); got != 1 {
		t.Errorf("the message was executed %d times", got)
	}
}

func TestFailureAndPanicOfAService(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil)
	r.mu.Lock()
	r.process = func(_ context.Context, m *fspb.Message) error {
		if m.MessageType == "panic" {
			panic("walrus")
		}
		return errors.New("no such file \xff")
	}
	r.mu.Unlock()
	if err := r.agent.Install(t.Context(), installation("bad")); err != nil {
		t.Fatal(err)
	}
	n := s.open()
	records := n.ackAll()
	for kind, want := range map[string]string{"fail": "no such file \ufffd", "panic": "walrus"} {
		n.push(to(n, "bad", kind, nil))
		failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
		if !strings.Contains(failure.Error, want) {
			t.Errorf("%s: error is %q", kind, failure.Error)
		}
	}
}

// One service that hangs delays neither others nor acknowledgements, and costs tokens of its own only.
func TestSlowServiceHoldsUpNobody(t *testing.T) { // G-38, G-61
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "quick")
	n := s.open() // after which the service quick is there
	release := make(chan struct{})
	defer close(release)
	r.mu.Lock()
	r.process = func(context.Context, *fspb.Message) error { <-release; return nil }
	r.mu.Unlock()
	if err := r.agent.Install(t.Context(), installation("slow")); err != nil {
		t.Fatal(err)
	}
	records := n.ackAll()
	var flood []*fspb.Message
	for range 400 { // more than the inbox holds
		flood = append(flood, to(n, "slow", "x", nil))
	}
	n.push(flood...)
	m := to(n, "quick", "x", nil)
	n.push(m)
	if ids := acked(t, await(t, records, "MessageAck")); !bytes.Equal(ids[0], m.MessageId) {
		t.Errorf("acks of %x", ids)
	}
}

// Tokens go back on a record of their own when many were used up.
func TestTokensGoBack(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil)
	r.mu.Lock()
	held := make(chan struct{})
	r.process = func(ctx context.Context, m *fspb.Message) error {
		if m.MessageType == "hold" {
			<-held
		}
		return nil
	}
	r.mu.Unlock()
	if err := r.agent.Install(t.Context(), installation("sink")); err != nil {
		t.Fatal(err)
	}
	n := s.open()
	records := n.ackAll()
	granted := n.first.data.AllowedMessages["sink"]
	for granted == 0 { // the session was opened before the service was there: its grant comes later
		granted = receive(t, records, "the grant").data.AllowedMessages["sink"]
	}
	for range 40 {
		m := to(n, "sink", "quick", nil)
		m.MessageId = nil // so that no ack carries the tokens
		n.push(m)
	}
	returned := uint64(0)
	for returned < 32 {
		returned += receive(t, records, "tokens").data.AllowedMessages["sink"]
	}
	close(held)
	if returned > 40 {
		t.Errorf("%d tokens came back for 40 messages", returned)
	}
}

func TestServicesCannotPoseAsTheAgent(t *testing.T) { // G-45
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	host := r.probe("echo").spec.Host
	other := identity.NewClientID()
	for _, tt := range []struct {
		to   *fspb.Address
		want error
	}{
		{nil, agent.ErrNoDestination},
		{&fspb.Address{}, agent.ErrNoDestination},
		{&fspb.Address{ServiceName: "system"}, agent.ErrReservedService},
		{&fspb.Address{ServiceName: "system", ClientId: n.id.Bytes()}, agent.ErrReservedService},
		{&fspb.Address{ServiceName: "echo", ClientId: other.Bytes()}, agent.ErrForeignClient},
		{&fspb.Address{ServiceName: "walrus", ClientId: n.id.Bytes()}, agent.ErrServiceUnavailable},
	} {
		if err := host.Send(t.Context(), &fspb.Message{Destination: tt.to}, nil); !errors.Is(err, tt.want) {
			t.Errorf("to %v: %v, want %v", tt.to, err, tt.want)
		}
	}
	large := &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}, Data: &anypb.Any{Value: make([]byte, 3<<20)}}
	if err := host.Send(t.Context(), large, nil); !errors.Is(err, agent.ErrMessageTooLarge) { // G-16
		t.Errorf("3 MiB: %v", err)
	}
}

// A message between services of one client is delivered, and the server hears nothing of it.
func TestLocalMessages(t *testing.T) { // G-19
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "a", "b")
	n := s.open()
	records := n.ackAll()
	m := &fspb.Message{Destination: &fspb.Address{ClientId: n.id.Bytes(), ServiceName: "b"}, MessageType: "local"}
	if err := r.probe("a").spec.Host.Send(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	got := receive(t, r.probe("b").messages, "the local message")
	if got.Source.GetServiceName() != "a" || len(got.SourceMessageId) != 16 || len(got.MessageId) != 0 {
		t.Errorf("got %v", got)
	}
	r.send("a", 1, fspb.Message_MEDIUM)
	rec := receive(t, records, "a record")
	for len(numbers(rec)) == 0 {
		if len(find(rec, "MessageAck")) > 0 {
			t.Errorf("the local message is acknowledged: %v", rec.data)
		}
		rec = receive(t, records, "a record")
	}
}

func TestMessagesThatAreDropped(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	odd := to(n, "echo", "odd ID", nil)
	odd.MessageId = []byte{1, 2, 3}
	good := to(n, "echo", "good", nil)
	n.push(&fspb.Message{}, odd, toClient(t, identity.NewClientID(), "echo", "foreign", nil),
		&fspb.Message{MessageId: identity.NewMessageID().Bytes(), Destination: &fspb.Address{ServiceName: "echo"}}, good)
	if ids := acked(t, await(t, records, "MessageAck")); len(ids) != 1 || !bytes.Equal(ids[0], good.MessageId) {
		t.Errorf("acks of %x", ids)
	}
	if got := len(r.probe("echo").messages); got != 1 {
		t.Errorf("%d messages were delivered", got)
	}
}

func TestInstallAndRemove(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil)
	n := s.open()
	records := n.ackAll()
	services := func() []*fspb.ClientInfoData_ServiceID {
		return unpack(t, await(t, records, "ClientInfo"), &fspb.ClientInfoData{}).Services
	}
	in := installation("late")
	in.Signature = []byte("signed")
	in.Config.RequiredLabels = []*fspb.Label{{ServiceName: "client", Label: "red"}, {ServiceName: "other", Label: "blue"}}
	if err := r.agent.Install(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if got := services(); len(got) != 1 || got[0].Name != "late" || string(got[0].Signature) != "signed" {
		t.Errorf("services are %v", got)
	}
	m := to(n, "late", "hello", nil)
	n.push(m)
	if ids := acked(t, await(t, records, "MessageAck")); !bytes.Equal(ids[0], m.MessageId) {
		t.Errorf("acks of %x", ids)
	}
	if err := r.agent.Remove(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	if got := services(); len(got) != 0 {
		t.Errorf("services are %v", got)
	}
	for name, change := range map[string]func(*fspb.ClientServiceConfig){
		"empty name":    func(c *fspb.ClientServiceConfig) { c.Name = "" },
		"reserved name": func(c *fspb.ClientServiceConfig) { c.Name = "system" },
		"missing label": func(c *fspb.ClientServiceConfig) {
			c.RequiredLabels = []*fspb.Label{{ServiceName: "client", Label: "blue"}}
		},
		"unknown factory": func(c *fspb.ClientServiceConfig) { c.Factory = "probe" },
	} {
		bad := installation("bad")
		change(bad.Config)
		if err := r.agent.Install(t.Context(), bad); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
	if err := r.agent.Remove(t.Context(), "system"); err == nil {
		t.Error("the system service is removed")
	}
}
