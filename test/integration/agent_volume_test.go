package integration_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
	"github.com/farspeak/farspeak/sdk/backend"
	"github.com/farspeak/farspeak/test/harness"
)

const (
	// volumeMessages go to a service that answers each; every volumeLarge-th is as large as a message may be.
	volumeMessages = 100
	volumeLarge    = 10
	// noopMessages go to a service that answers nothing.
	noopMessages = 1000
	// aroundPayload is more than a message has beside its payload, in bytes.
	aroundPayload = 1000
)

// Large messages among small ones, to each kind of service that answers and back to a backend made of the SDK: none is lost,
// none is changed, and all come in order. TestEndpointServices sends more of them, small ones only.
func TestLargeAmongSmall(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Stdin", "Daemon", "Socket"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := startVolume(t, kind)
			for n := range uint64(volumeMessages) {
				v.submit(t, v.message(t, n, n%volumeLarge == 0))
			}
			v.awaitAnswers(t)
			v.awaitCompleted(t)
		})
	}
}

// A NOOP service completes whatever it gets, up to the largest message, and says nothing itself.
func TestNOOP(t *testing.T) {
	t.Parallel()
	v := startVolume(t, "NOOP")
	for n := range uint64(noopMessages) {
		v.submit(t, v.message(t, n, n == 0))
	}
	v.awaitCompleted(t)
	if n := len(v.answers.list()); n > 0 {
		t.Errorf("%d messages came from the service", n)
	}
}

// volume is an installation with one client, the service "walrus" on it, and a backend that submits to it.
type volume struct {
	*installation
	kind      string
	client    []byte
	submitter *backend.Submitter
	answers   *answers
	submitted [][]byte // message IDs
}

func startVolume(t *testing.T, kind string) *volume {
	t.Helper()
	v := &volume{kind: kind, answers: &answers{seen: make(map[string]bool)}}
	v.installation = install(t, shape{site: func(s *harness.Site) {
		s.AddProcessor("walrus", v.answers.take)
		inOrder(s)
	}})
	client := v.startClient(t)
	v.client = client.ID()
	awaitClients(t, v.admins[0].Client(t), []*harness.Client{client})
	var err error
	v.submitter, err = backend.NewSubmitter(backend.SubmitterConfig{Address: v.admins[0].Address, Source: "walrus"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.submitter.Close() })
	return v
}

// startClient runs the agent, and the program of a Socket.
func (v *volume) startClient(t *testing.T) *harness.Client {
	t.Helper()
	config := &fspb.ClientServiceConfig{Name: "walrus", Factory: v.kind}
	var program []string
	switch v.kind {
	case "Stdin":
		config.Config = mustPack(t, &stdinpb.Config{Cmd: "cat"})
	case "Daemon", "Socket":
		config.Config, program = endpointService(t, v.kind)
	}
	client := v.StartClient("fs-client", harness.ClientOptions{
		Servers:  []string{v.servers[0].ClientAddress},
		Services: []*fspb.ClientServiceConfig{config},
	})
	if program != nil {
		harness.Start(t, v.Dir, "endpoint", program[0], program[1:]...)
	}
	return client
}

// message is the nth message to the service, a small one or the largest there is.
func (v *volume) message(t *testing.T, n uint64, large bool) *fspb.Message {
	t.Helper()
	m, err := backend.NewMessage(v.client, "walrus", "Volume", nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Source, m.CreationTime = &fspb.Address{ServiceName: "walrus"}, timestamppb.Now() // what would be added to its size
	if !large {
		v.fill(t, m, n, 8)
		return m
	}
	v.fill(t, m, n, backend.MaxMessage-aroundPayload)
	v.fill(t, m, n, backend.MaxMessage-aroundPayload+backend.MaxMessage-proto.Size(m))
	if size := proto.Size(m); size != backend.MaxMessage {
		t.Fatalf("the message has %d bytes", size)
	}
	return m
}

// fill gives a message its payload, which differs from that of all others.
func (v *volume) fill(t *testing.T, m *fspb.Message, n uint64, length int) {
	t.Helper()
	payload := make([]byte, length)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(payload) // never fails
	if v.kind == "Stdin" {
		m.MessageType, m.Data = "StdinServiceInputMessage", mustPack(t, &stdinpb.InputMessage{Input: payload})
		return
	}
	m.Data = mustPack(t, wrapperspb.Bytes(payload))
}

func (v *volume) submit(t *testing.T, m *fspb.Message) {
	t.Helper()
	if err := v.submitter.Submit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	payload, err := payloadOf(m)
	if err != nil {
		t.Fatal(err)
	}
	v.submitted = append(v.submitted, m.MessageId)
	v.answers.expect(payload)
}

func (v *volume) awaitAnswers(t *testing.T) {
	t.Helper()
	harness.Eventually(t, endpointPatience, "answers", func() error {
		if n := len(v.answers.list()); n < len(v.submitted) {
			return fmt.Errorf("%d of %d have come", n, len(v.submitted))
		}
		return nil
	})
	for n, answer := range v.answers.list() {
		if answer != v.answers.expected[n] {
			t.Fatalf("answer %d has another payload than message %d", n, n)
		}
	}
	t.Logf("%d messages down and up, of which %d with %d bytes", volumeMessages, volumeMessages/volumeLarge, backend.MaxMessage)
}

// awaitCompleted waits until the client has reported success for each message.
func (v *volume) awaitCompleted(t *testing.T) {
	t.Helper()
	admin := v.admins[0].Client(t)
	for _, id := range v.submitted {
		harness.Eventually(t, endpointPatience, "result", func() error {
			switch result := admin.Result(t, id); {
			case result == nil:
				return errors.New("there is none")
			case result.Failed:
				t.Fatalf("the message failed: %v", result)
			}
			return nil
		})
	}
}

// answers are the payloads that came to the backend, each message once, and those that should.
type answers struct {
	mu       sync.Mutex
	seen     map[string]bool // message IDs
	arrived  [][sha256.Size]byte
	expected [][sha256.Size]byte
}

func (a *answers) expect(payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expected = append(a.expected, sha256.Sum256(payload))
}

func (a *answers) take(_ context.Context, m *fspb.Message) error {
	payload, err := payloadOf(m)
	if err != nil {
		return backend.Permanent(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.seen[string(m.MessageId)] {
		a.seen[string(m.MessageId)] = true
		a.arrived = append(a.arrived, sha256.Sum256(payload))
	}
	return nil
}

func (a *answers) list() [][sha256.Size]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrived
}

// payloadOf is what fill put into a message, or what came back of it.
func payloadOf(m *fspb.Message) ([]byte, error) {
	payload, err := m.Data.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	switch p := payload.(type) {
	case *stdinpb.InputMessage:
		return p.Input, nil
	case *stdinpb.OutputMessage:
		return p.Stdout, nil
	case *wrapperspb.BytesValue:
		return p.Value, nil
	}
	return nil, fmt.Errorf("a payload of type %s", m.Data.TypeUrl)
}
