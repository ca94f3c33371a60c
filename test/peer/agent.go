// Package peer is a fake agent, for tests of servers. It is written from the wire protocol's description and shares no
// code with Farspeak's own agent or codec, so that a misreading which both ends of Farspeak had in common would show.
//
// There are two levels. Target, Session and Poller are driven by hand, well-behaved or not. An Agent runs by itself: it
// connects again and again, sends what it was given until the server acknowledged it, acknowledges what it gets, returns
// tokens, takes a new key when told to, and counts everything, also what the server did wrong. Thousands of them fit into
// one process.
//
// An Agent's Run owns its goroutines and returns after them. Everything else may be called at any time.
package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// systemService is the service that every agent has.
	systemService = "system"
	// inboxSize is the number of tokens that an agent grants for each service.
	inboxSize = 100
	// beaconEvery is after how many messages of a service tokens are returned without waiting for something to send.
	beaconEvery = 32
	// maxRecordMessages is what a server takes in one record.
	maxRecordMessages = 100

	defaultAckDelay   = time.Second
	defaultBatchDelay = 20 * time.Millisecond
	defaultRetry      = 200 * time.Millisecond
	defaultWindow     = 4
)

// Config says what an agent is. Targets are needed; everything else has a default.
type Config struct {
	// Key is the identity to begin with; by default a fresh one.
	Key *Key
	// Targets are tried in turn.
	Targets []Target
	// Labels are claimed in every record.
	Labels []string
	// Services are those installed beside "system".
	Services []string
	// Deflate compresses what the agent sends on a session.
	Deflate bool
	// PollInterval makes the agent poll instead of streaming.
	PollInterval time.Duration
	// AckDelay is how long acknowledgements are collected. Default 1 s, that of the reference agent.
	AckDelay time.Duration
	// BatchDelay is how long messages are collected for a record. Default 20 ms.
	BatchDelay time.Duration
	// Retry is the pause after a failure, before jitter. Default 200 ms.
	Retry time.Duration
	// Window is how many records may wait for their acknowledgements. Default 4.
	Window int
	// Answer is called for each message to a service other than "system"; what it returns is sent. Default: nothing is.
	Answer func(*fspb.Message) *fspb.Message
}

// Agent is one fake agent.
type Agent struct {
	cfg  Config
	wake chan struct{} // has room for one: there is something to send

	mu         sync.Mutex
	key        *Key
	nonce      uint64
	connected  bool
	stats      Stats
	violations []string
	outbox     outbox
	inbox      inbox
}

// Stats counts what an agent saw.
type Stats struct {
	Sent         int // messages given to Send, the agent's own included
	Acknowledged int // of those, accepted by the server
	Received     int // distinct messages
	Duplicates   int // deliveries beyond the first
	Sessions     int // sessions or polls that began well
	Farewells    int // done_sending
	Rekeys       int
	Failures     int // attempts that did not become a session
	LastError    string
}

// New makes an agent; Run brings it to life.
func New(cfg Config) (*Agent, error) {
	if len(cfg.Targets) == 0 {
		return nil, errors.New("peer: an agent needs a target")
	}
	key := cfg.Key
	if key == nil {
		var err error
		if key, err = NewKey(); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	cfg.AckDelay = durationOr(cfg.AckDelay, defaultAckDelay)
	cfg.BatchDelay = durationOr(cfg.BatchDelay, defaultBatchDelay)
	cfg.Retry = durationOr(cfg.Retry, defaultRetry)
	if cfg.Window <= 0 {
		cfg.Window = defaultWindow
	}
	a := &Agent{cfg: cfg, wake: make(chan struct{}, 1), key: key}
	a.inbox.init()
	return a, nil
}

func durationOr(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// Start makes count agents and runs them until the test ends. configure gets the number of each.
func Start(tb testing.TB, count int, configure func(int) Config) []*Agent {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	tb.Cleanup(func() { cancel(); running.Wait() })
	agents := make([]*Agent, count)
	for i := range agents {
		a, err := New(configure(i))
		if err != nil {
			tb.Fatal(err)
		}
		agents[i] = a
		running.Go(func() { a.Run(ctx) })
	}
	return agents
}

// Run connects, again and again, until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	defer a.stopAckTimer()
	a.Send(ClientInfo(a.cfg.Labels, a.cfg.Services))
	for attempt := 0; ctx.Err() == nil; attempt++ {
		target := a.cfg.Targets[attempt%len(a.cfg.Targets)]
		var err error
		if a.cfg.PollInterval > 0 {
			err = a.pollForever(ctx, target)
		} else {
			err = a.runSession(ctx, target)
		}
		if err != nil && ctx.Err() == nil {
			a.failed(err)
			pause(ctx, a.cfg.Retry+rand.N(a.cfg.Retry))
		}
	}
}

func (a *Agent) failed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Failures++
	a.stats.LastError = err.Error()
}

// pause waits; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Key is the present identity.
func (a *Agent) Key() *Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key
}

// ID is the present client ID, 8 bytes.
func (a *Agent) ID() []byte { return a.Key().ID() }

// Connected says whether a session is open and past its first exchange.
func (a *Agent) Connected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connected
}

// Stats are the counts so far.
func (a *Agent) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// Violations lists what the server did against the protocol.
func (a *Agent) Violations() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.violations)
}

// Deliveries is how often each message came, by message ID.
func (a *Agent) Deliveries() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.inbox.deliveries)
}

// AcknowledgedIDs are the IDs that the server gave the acknowledged messages.
func (a *Agent) AcknowledgedIDs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.outbox.acknowledged)
}

// violatedLocked notes an offence of the server, up to a bound.
func (a *Agent) violatedLocked(format string, args ...any) {
	const maxNoted = 20
	if len(a.violations) < maxNoted {
		a.violations = append(a.violations, fmt.Sprintf(format, args...))
	}
}

func (a *Agent) violated(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.violatedLocked(format, args...)
}

// contactLocked begins a record: clock, nonce, messages.
func (a *Agent) contactLocked(messages []*fspb.Message) *fspb.ContactData {
	return &fspb.ContactData{SequencingNonce: a.nonce, ClientClock: timestamppb.Now(), Messages: messages}
}
