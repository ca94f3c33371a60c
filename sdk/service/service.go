// Package service is for authors of endpoint services: programs that work on a client's machine for a backend, and reach
// it through the agent there, Farspeak's or the original Fleetspeak's.
//
// There are two kinds. A Daemon is started, supervised and ended by the agent, which it talks to over two pipes. A
// Socket is a program that somebody else starts; it connects to a socket that the agent keeps for it. Both exchange
// messages with the service of the same name, or of any other, on the server side:
//
//	agent, one per machine                    service
//	  textservices/hostfacts.config ──────►   OpenDaemon or OpenSocket
//	  message from a backend        ──────►   Receive
//	  message to a backend          ◄──────   Send
//
// Serve is the loop that most services need; the examples of this page are complete programs.
//
// # What to expect
//
// A message may come twice: it is delivered again when its acknowledgement was lost. What a Daemon has received counts as
// done for the server; what a program that is about to crash has read is lost with it. What a Daemon has sent is in its pipe
// when Send returns, and survives the program; what an agent that is killed has not read from the pipe is lost. A Socket keeps
// each message in memory until the server has it.
//
// Messages that a program does not receive wait at the agent, and then at the server. A Socket reads on nevertheless, slowly
// in the end, while something waits for acknowledgements: they come behind messages.
//
// A message has at most 2 MiB. The package writes nothing to standard output or error and has no state of its own; one
// process has at most one Daemon, and may have any number of Sockets.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// MaxMessage is the largest serialized message in bytes.
const MaxMessage = channel.MaxMessage

var (
	// ErrTooLarge says that a message has more than MaxMessage bytes.
	ErrTooLarge = channel.ErrTooLarge
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("connection to the agent is closed")
	// ErrInboxFull says that a Socket cannot wait for acknowledgements: they come behind messages of the agent, and 64 MiB of
	// those wait for Receive already. After some of them it can wait again.
	ErrInboxFull = errors.New("too many messages wait to be received")
)

// Conn is a connection to the agent; Daemon and Socket are. Its methods may be called from any goroutine.
type Conn interface {
	// Receive waits for the next message. A context that ends costs no message. The error io.EOF says that the agent has
	// ended the service: the program should finish its work and exit.
	Receive(ctx context.Context) (*fspb.Message, error)
	// Send hands a message to the agent. It waits while the agent takes no more.
	Send(ctx context.Context, m *fspb.Message) error
}

// A Handler does what a message asks for and returns the answer; nil is none. An error ends the service.
type Handler func(ctx context.Context, m *fspb.Message) (answer *fspb.Message, err error)

// Serve handles messages one after another until the agent ends the service or ctx ends, which both make it return nil.
func Serve(ctx context.Context, conn Conn, handle Handler) error {
	for {
		m, err := conn.Receive(ctx)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil
		default:
			return err
		}
		answer, err := handle(ctx, m)
		if err != nil {
			return fmt.Errorf("message of type %q: %w", m.GetMessageType(), err)
		}
		if answer == nil {
			continue
		}
		if err := conn.Send(ctx, answer); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// NewMessage makes a message for a service on the server side. data may be nil.
func NewMessage(service, messageType string, data proto.Message) (*fspb.Message, error) {
	m := &fspb.Message{Destination: &fspb.Address{ServiceName: service}, MessageType: messageType}
	if data == nil {
		return m, nil
	}
	var err error
	if m.Data, err = anypb.New(data); err != nil {
		return nil, fmt.Errorf("message of type %q: %w", messageType, err)
	}
	return m, nil
}

// Reply makes the answer to a message. It goes to the service on the server side that sent the message.
func Reply(to *fspb.Message, messageType string, data proto.Message) (*fspb.Message, error) {
	service := to.GetSource().GetServiceName()
	if service == "" {
		return nil, errors.New("the message does not say which service sent it")
	}
	return NewMessage(service, messageType, data)
}

// check refuses what an agent would drop without a word.
func check(m *fspb.Message) error {
	switch {
	case m.GetDestination().GetServiceName() == "":
		return errors.New("the message has no destination service")
	case channel.IsSystem(m):
		return fmt.Errorf("the service %q belongs to the agent", channel.System)
	}
	return nil
}
