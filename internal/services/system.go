package services

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/golang/glog"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// systemName is the service that agents themselves speak to, and the one they speak as.
const systemName = "system"

const (
	// maxAcksAtOnce bounds what one message adds to one commit; longer lists take several.
	maxAcksAtOnce = 500
	// maxErrorText bounds the text of a MessageError in bytes. It is a guard and no limit that a real error meets.
	maxErrorText = 32 << 10
	// Intervals between log lines that clients can cause.
	killLogInterval    = 15 * time.Minute
	foreignLogInterval = time.Minute
)

// system takes what agents report of themselves and of the messages they got. A report counts as taken when it is
// committed; many share a commit.
type system struct {
	writes  *writes
	metrics *metrics

	killLine, foreignLine rate.Sometimes
}

// Process is process for a sender of whom no more is known than the message says.
func (s *system) Process(ctx context.Context, m *fspb.Message) error {
	return s.process(ctx, sender{id: senderID(m), blacklisted: m.GetIsBlocklistedSource()}, m)
}

func (s *system) Close() error { return nil }

// process dispatches by type. Only agents speak as "system"; services on a client must not be able to (G-45).
func (s *system) process(ctx context.Context, from sender, m *fspb.Message) error {
	if name := m.GetSource().GetServiceName(); name != systemName {
		return Permanent(fmt.Errorf("message to system from service %q, want system", cut(name, store.MaxName)))
	}
	if from.id.IsNil() {
		return Permanent(errors.New("message to system from no client"))
	}
	switch m.GetMessageType() {
	case "MessageAck":
		return payload(m, func(d *fspb.MessageAckData) error { return s.ack(ctx, from, d) })
	case "MessageError":
		return payload(m, func(d *fspb.MessageErrorData) error { return s.messageError(ctx, from, d) })
	case "ClientInfo":
		return payload(m, func(d *fspb.ClientInfoData) error { return s.clientInfo(ctx, from, d) })
	case "ResourceUsage":
		return payload(m, func(d *monitoringpb.ResourceUsageData) error { return s.resourceUsage(ctx, from, d) })
	case "KillNotification":
		return payload(m, func(d *monitoringpb.KillNotification) error { return s.killNotification(from, d) })
	default:
		return Permanent(fmt.Errorf("unknown system message type: %s", m.GetMessageType()))
	}
}

// payload decodes the data of a message, unless it has more fields than any agent sends. What cannot be decoded now never
// can.
func payload[T any, P interface {
	*T
	proto.Message
}](m *fspb.Message, use func(P) error) error {
	if m.GetData() == nil {
		return Permanent(errors.New("no Data present"))
	}
	data := P(new(T))
	err := checkElements(m, data)
	if err == nil {
		err = m.Data.UnmarshalTo(data)
	}
	if err != nil {
		return Permanent(fmt.Errorf("data of %s: %w", m.GetMessageType(), err))
	}
	return use(data)
}

// checkElements refuses data that would take far more memory than its bytes (G-03). Data of another type is left to who
// decodes it.
func checkElements(m *fspb.Message, data proto.Message) error {
	if !m.Data.MessageIs(data) {
		return nil
	}
	_, err := CountElements(m.Data.Value, data.ProtoReflect().Descriptor())
	return err
}

// ack completes messages to the sender. IDs that are unknown, empty, or of others' messages hold up nothing (G-19).
func (s *system) ack(ctx context.Context, from sender, d *fspb.MessageAckData) error {
	for ids := range slices.Chunk(d.GetMessageIds(), maxAcksAtOnce) {
		acks, err := acksOf(from, ids)
		if err != nil {
			return Permanent(err)
		}
		if err := s.writeAcks(ctx, from, acks); err != nil {
			return err
		}
	}
	return nil
}

func acksOf(from sender, ids [][]byte) (acks []store.Ack, err error) {
	for _, b := range ids {
		id, err := identity.MessageIDFromBytes(b)
		if err != nil {
			return nil, err
		}
		if !id.IsNil() {
			acks = append(acks, store.Ack{MessageRef: store.MessageRef{ClientID: from.id, ID: id}})
		}
	}
	return acks, nil
}

func (s *system) writeAcks(ctx context.Context, from sender, acks []store.Ack) error {
	if len(acks) == 0 {
		return nil
	}
	answers, err := s.writes.acks.Do(ctx, acks)
	if err != nil {
		return err
	}
	for i, err := range answers {
		if errors.Is(err, store.ErrNotFound) {
			s.foreignAck(from, acks[i].ID)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// foreignAck notes that a client acknowledged a message of another one.
func (s *system) foreignAck(from sender, id identity.MessageID) {
	s.metrics.foreign.Inc()
	s.foreignLine.Do(func() {
		glog.Warningf("client %s acknowledged message %s, which is not its own; ignored", from.id, id)
	})
}

// messageError completes one message to the sender as failed.
func (s *system) messageError(ctx context.Context, from sender, d *fspb.MessageErrorData) error {
	id, err := identity.MessageIDFromBytes(d.GetMessageId())
	if err != nil {
		return Permanent(err)
	}
	if id.IsNil() {
		return nil
	}
	answers, err := s.writes.acks.Do(ctx, []store.Ack{{
		MessageRef: store.MessageRef{ClientID: from.id, ID: id},
		Failed:     true,
		Reason:     cut(d.GetError(), maxErrorText),
	}})
	switch {
	case err != nil:
		return err
	case errors.Is(answers[0], store.ErrNotFound):
		s.foreignAck(from, id)
		return Permanent(errors.New("the message in error is not addressed to the sender"))
	}
	return answers[0]
}

// clientInfo replaces the labels of service "client" and the list of services (G-47). Entries that no store could hold are
// left out, so that they cost the client nothing else.
func (s *system) clientInfo(ctx context.Context, from sender, d *fspb.ClientInfoData) error {
	info := store.ClientInfo{ClientID: from.id}
	for _, l := range d.GetLabels() {
		if l.GetServiceName() == "client" && usableName(l.GetLabel()) && len(info.Labels) < store.MaxLabels {
			info.Labels = append(info.Labels, l.GetLabel())
		}
	}
	for _, service := range d.GetServices() {
		if usableName(service.GetName()) && len(info.Services) < store.MaxLabels {
			info.Services = append(info.Services, store.ClientService{Name: service.GetName(), Signature: service.GetSignature()})
		}
	}
	result, err := s.writes.infos.Do(ctx, info)
	if err != nil {
		return err
	}
	if errors.Is(result, store.ErrInvalid) {
		return Permanent(result)
	}
	return result
}

// usableName reports whether a client's text can be stored as a name.
func usableName(name string) bool { return name != "" && utf8.RuneCountInString(name) <= store.MaxName }

// killNotification counts a process that an agent killed. Nothing is stored.
func (s *system) killNotification(from sender, d *monitoringpb.KillNotification) error {
	s.metrics.killed(from, d)
	s.killLine.Do(func() {
		glog.Warningf("client %s: service %q, version %q, killed: %s; further ones are only counted for %v",
			from.id, cut(d.GetService(), store.MaxName), cut(d.GetVersion(), store.MaxName), d.GetReason(), killLogInterval)
	})
	return nil
}
