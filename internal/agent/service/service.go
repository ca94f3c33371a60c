// Package service holds the kinds of local service that an agent runs: NOOP, which swallows messages, Stdin, which runs a
// command for each, Daemon, which keeps a process running and talks to it over pipes, and Socket, which talks to a process
// that somebody else runs.
//
// The agent owns the queue in front of a service and calls the service from one goroutine, one message at a time, in
// order. A service owns the processes and goroutines it starts, and Stop returns after they have ended.
package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Service is one local end of messages.
type Service interface {
	// Process takes one message. Nil completes the message for the server; an error makes it a failed one, with the
	// error's text as the reason. When ctx ends the agent is stopping the service: Process then returns soon, and if it
	// returns an error the message counts as not processed and comes again later.
	Process(ctx context.Context, m *fspb.Message) error
	// Stop ends whatever the service started. No Process is running then, and none follows. It returns at the latest when
	// ctx ends.
	Stop(ctx context.Context)
}

// Host is what a service may ask of its agent. Its methods may be called from any goroutine.
type Host interface {
	// ClientID is the agent's name; a rekey changes it.
	ClientID() identity.ClientID
	// Send hands a message over. The agent fills in the source, and a source message ID if there is none; the rest is
	// kept. It blocks while the outbox is full, until ctx ends. Nil means that the agent has the message; accepted, if not
	// nil, is called when the server has it, and must not block.
	Send(ctx context.Context, m *fspb.Message, accepted func()) error
	// Report sends one of the agent's own messages about a service, such as ResourceUsage, at low priority. It waits for
	// room as Send does.
	Report(ctx context.Context, kind string, data proto.Message) error
}

// Spec says which service to make.
type Spec struct {
	Name string
	// Config is the factory's configuration; nil when the service file has none.
	Config *anypb.Any
	Host   Host
}

// Factory makes a running service of one kind, or says what is wrong with its configuration.
type Factory func(Spec) (Service, error)

// Factories are the kinds of service by the name that service files use.
type Factories map[string]Factory

// Standard returns the kinds that this package has.
func Standard() Factories {
	return Factories{
		"Daemon": NewDaemon,
		"NOOP":   NewNOOP,
		"Socket": NewSocket,
		"Stdin":  NewStdin,
	}
}

// New makes the service that a service file describes.
func (f Factories) New(factory string, spec Spec) (Service, error) {
	make, ok := f[factory]
	if !ok {
		kinds := slices.Sorted(maps.Keys(f))
		return nil, fmt.Errorf("unknown factory %q, this agent has %s", factory, strings.Join(kinds, ", "))
	}
	return make(spec)
}

// configOf reads the configuration of a kind that needs one.
func configOf(spec Spec, config proto.Message) error {
	if spec.Config == nil {
		return errors.New("the service file has no config")
	}
	if err := spec.Config.UnmarshalTo(config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}
