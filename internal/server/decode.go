package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// freeElements is how many fields of a record come without a charge to the memory budget, like the first bytes of it,
	// and elementSize what each of the others is charged.
	freeElements = 3_000
	elementSize  = 128
)

// record is one decoded record of a client.
type record struct {
	labels   []string // claimed
	data     *fspb.ContactData
	validity *fspb.ValidationInfo
	charge   *charge
}

// charge is what decoded records take of the memory budget.
type charge struct {
	memory wire.Memory
	bytes  int
}

// release gives back the memory of a record whose messages were taken. It may be called again.
func (c *charge) release() {
	c.memory.Release(c.bytes)
	c.bytes = 0
}

// decodeContact parses the record that makes a contact, a poll or the first one of a session, and puts it to the checks
// that need no store: a contact that fails them leaves no trace (G-32).
func (s *Server) decodeContact(body []byte, memory wire.Memory) (record, error) {
	return s.decode(body, memory, s.labelled)
}

// decodeRecord parses a later record of a session. What its labels are worth was decided by the first one.
func (s *Server) decodeRecord(body []byte, memory wire.Memory) (record, error) {
	return s.decode(body, memory, func([]string) bool { return true })
}

// decode parses a record. The caller releases its charge.
func (s *Server) decode(body []byte, memory wire.Memory, admitted func(labels []string) bool) (rec record, err error) {
	rec.charge = &charge{memory: memory}
	defer func() {
		if err != nil {
			rec.charge.release()
		}
	}()
	var wrapped fspb.WrappedContactData
	if err := rec.charge.unmarshal(body, &wrapped); err != nil {
		return rec, decodeRefusal(err, refuse(http.StatusBadRequest, "malformed", "the body is no WrappedContactData: %v", err))
	}
	if !admitted(wrapped.ClientLabels) {
		return rec, refuse(http.StatusServiceUnavailable, "not_authorized", "not authorized")
	}
	// Whether they are valid is for an authorizer that asks; the built-in one does not, so nothing is spent on it (G-01).
	if _, err := clientcert.ParseSignatures(wrapped.Signatures); err != nil {
		return rec, failedPeer("signature", err.Error())
	}
	if count := countField(wrapped.ContactData, messagesField); count > wire.MaxMessagesPerRecord {
		return rec, failedPeer("too_many_messages",
			fmt.Sprintf("%d messages in a record, at most %d are allowed", count, wire.MaxMessagesPerRecord))
	}
	rec.labels, rec.data = wrapped.ClientLabels, &fspb.ContactData{}
	if err := rec.charge.unmarshal(wrapped.ContactData, rec.data); err != nil {
		return rec, decodeRefusal(err, failedPeer("malformed", fmt.Sprintf("contact_data cannot be parsed: %v", err)))
	}
	if err := rec.charge.payloads(rec.data.Messages); err != nil {
		return rec, noMemory()
	}
	return rec, nil
}

// decodeRefusal is malformed, unless it was for want of memory.
func decodeRefusal(err error, malformed *refusal) *refusal {
	if errors.Is(err, wire.ErrBudget) {
		return noMemory()
	}
	return malformed
}

// failedPeer is a fault of the peer that the wire protocol reports as a failed contact.
func failedPeer(reason, text string) *refusal {
	return refuse(http.StatusInternalServerError, reason, "error processing contact: %s", text)
}

func (s *Server) labelled(claimed []string) bool {
	return s.cfg.RequiredLabel == "" || slices.Contains(claimed, s.cfg.RequiredLabel)
}

// errNoMessage says that proto.Unmarshal failed, whose own text quotes the peer.
var errNoMessage = errors.New("malformed protocol buffer")

// messagesField is the number of ContactData.messages.
const messagesField protowire.Number = 2

// unmarshal parses a message of a bounded number of fields, and charges for many.
func (c *charge) unmarshal(encoded []byte, m proto.Message) error {
	count, err := services.CountElements(encoded, m.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	if err := c.pay(count); err != nil {
		return err
	}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return errNoMessage
	}
	return nil
}

// payloads charges for what the data of messages becomes when a service of this process decodes it. It may decode all of
// them at the same time.
func (c *charge) payloads(messages []*fspb.Message) error {
	count := 0
	for _, m := range messages {
		count += services.PayloadElements(m)
	}
	return c.pay(count)
}

// pay charges for decoded fields.
func (c *charge) pay(elements int) error {
	charged := (elements - freeElements) * elementSize
	if charged <= 0 {
		return nil
	}
	if err := c.memory.Acquire(charged); err != nil {
		return err
	}
	c.bytes += charged
	return nil
}

// countField counts the fields of that number at the top of an encoded message, as far as it can be read.
func countField(encoded []byte, wanted protowire.Number) (count int) {
	for len(encoded) > 0 {
		number, _, size := protowire.ConsumeField(encoded)
		if size < 0 {
			return count
		}
		if number == wanted {
			count++
		}
		encoded = encoded[size:]
	}
	return count
}
