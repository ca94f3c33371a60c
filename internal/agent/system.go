package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/golang/glog"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/service"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Messages of the server to the agent itself.
const (
	typeRekeyRequest   = "RekeyRequest"
	typeDie            = "Die"
	typeRestartService = "RestartService"
)

// systemActions is what the system service has the agent do.
type systemActions interface {
	rekey() error
	die(force bool)
	restartService(ctx context.Context, name string) error
	installService(context.Context, *fspb.Message) error
	removeService(context.Context, *fspb.Message) error
}

// system is the service by which the server addresses the agent itself.
type system struct{ actions systemActions }

var _ service.Service = system{}

func (s system) Process(ctx context.Context, m *fspb.Message) error {
	switch m.MessageType {
	case typeRekeyRequest:
		return s.actions.rekey()
	case typeDie:
		return s.die(m)
	case typeRestartService:
		request := &fspb.RestartServiceRequest{}
		if err := unpack(m, request); err != nil {
			return err
		}
		return s.actions.restartService(ctx, request.Name)
	case typeInstallService:
		return s.actions.installService(ctx, m)
	case typeRemoveService:
		return s.actions.removeService(ctx, m)
	}
	return unknownType(m)
}

func unknownType(m *fspb.Message) error {
	return fmt.Errorf("unable to process message of type: %.100s", m.MessageType)
}

// die is never acknowledged nor failed: the server completes the message as it hands it out.
func (s system) die(m *fspb.Message) error {
	request := &fspb.DieRequest{}
	if err := unpack(m, request); err != nil {
		glog.Warningf("a request to die is ignored: %v", err)
		return errNoOutcome
	}
	glog.Infof("told to die (force: %t)", request.Force)
	s.actions.die(request.Force)
	return errNoOutcome
}

func (s system) Stop(context.Context) {}

func unpack(m *fspb.Message, into proto.Message) error {
	if m.Data == nil {
		return errors.New("the message has no data")
	}
	if err := m.Data.UnmarshalTo(into); err != nil {
		return fmt.Errorf("unreadable %.100s: %w", m.MessageType, err)
	}
	return nil
}
