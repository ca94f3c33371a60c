package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// host is the agent as one service sees it.
type host struct {
	name   string
	self   func() identity.ClientID
	outbox *outbox
	router *router
}

var _ service.Host = (*host)(nil)

func (h *host) ClientID() identity.ClientID { return h.self() }

// Send implements service.Host. Only the agent itself talks to "system", on either side (G-45).
func (h *host) Send(ctx context.Context, m *fspb.Message, accepted func()) error {
	self := h.self()
	to := m.GetDestination()
	switch {
	case to.GetServiceName() == "":
		return ErrNoDestination
	case to.ServiceName == systemService:
		return ErrReservedService
	case len(to.ClientId) > 0 && !bytes.Equal(to.ClientId, self.Bytes()):
		return ErrForeignClient
	}
	m.Source = &fspb.Address{ClientId: self.Bytes(), ServiceName: h.name}
	if len(m.SourceMessageId) == 0 {
		m.SourceMessageId = newSourceMessageID()
	}
	if len(to.ClientId) > 0 {
		return h.router.deliverLocal(ctx, m)
	}
	return h.outbox.send(ctx, m, accepted)
}

// Report implements service.Host.
func (h *host) Report(ctx context.Context, kind string, data proto.Message) error {
	return h.outbox.report(ctx, systemMessage(h.self(), kind, fspb.Message_LOW, data))
}

// errNoOutcome is what the system service returns for a message that is neither acknowledged nor failed.
var errNoOutcome = errors.New("no outcome is reported")

// process hands one message to a service. A panic is the message's failure and nobody else's.
func process(ctx context.Context, svc service.Service, m *fspb.Message) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic while processing: %v", cause)
		}
	}()
	return svc.Process(ctx, m)
}
