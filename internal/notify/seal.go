package notify

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// What is sealed is pushed to clients, so it comes from who knows the receiver's key, and nobody else reads it. The layout is
// 32 random bytes of salt, then the AES-256-GCM of a farspeak.notify.Handovers under HKDF-SHA256(key, salt, info).
//
// The salt gives each batch an AES key of its own. One key encrypts one text, so the nonce may always be zero: nobody has to
// count nonces, or to keep many senders that know the same key from using one twice.
const (
	saltSize = 32
	sealInfo = "farspeak handover 1"
	// tagSize is what the encryption adds.
	tagSize = 16
)

// seal encrypts handovers for the server with this key.
func seal(key []byte, handovers []*store.Handover) ([]byte, error) {
	message := &notifypb.Handovers{Handovers: make([]*notifypb.Handover, len(handovers))}
	for i, h := range handovers {
		message.Handovers[i] = toProto(h)
	}
	sealed := make([]byte, saltSize, saltSize+proto.Size(message)+tagSize)
	rand.Read(sealed) // never fails
	sealed, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(sealed, message)
	if err != nil {
		return nil, fmt.Errorf("encode handovers: %w", err)
	}
	aead, err := sealer(key, sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	return aead.Seal(sealed[:saltSize], make([]byte, aead.NonceSize()), sealed[saltSize:], nil), nil // in place
}

// open decrypts what a seal with the same key made, in place, and checks it.
func open(key, sealed []byte) ([]*store.Handover, error) {
	if len(sealed) < saltSize+tagSize {
		return nil, errors.New("too short for a salt and a tag")
	}
	aead, err := sealer(key, sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	text := sealed[saltSize:]
	text, err = aead.Open(text[:0], make([]byte, aead.NonceSize()), text, nil)
	if err != nil {
		return nil, err
	}
	var message notifypb.Handovers
	if err := proto.Unmarshal(text, &message); err != nil {
		return nil, errors.New("the text is no farspeak.notify.Handovers")
	}
	return checked(message.Handovers)
}

// sealer is the cipher of one batch.
func sealer(key, salt []byte) (cipher.AEAD, error) {
	if len(key) != HandoverKeySize {
		return nil, fmt.Errorf("a key has %d bytes, not %d", HandoverKeySize, len(key))
	}
	own, err := hkdf.Key(sha256.New, key, salt, sealInfo, HandoverKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a batch: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("use the key of a batch: %w", err)
	}
	return cipher.NewGCM(block)
}

// checked takes all of what was sealed or nothing.
func checked(given []*notifypb.Handover) ([]*store.Handover, error) {
	if len(given) == 0 || len(given) > maxHandovers {
		return nil, fmt.Errorf("%d handovers, where there may be 1 to %d", len(given), maxHandovers)
	}
	handovers := make([]*store.Handover, len(given))
	size := 0
	for i, m := range given {
		h, err := fromProto(m)
		if err != nil {
			return nil, fmt.Errorf("handover %d: %w", i, err)
		}
		if size += handoverSize(h); size > maxHandoverBytes {
			return nil, fmt.Errorf("messages of more than %d bytes", maxHandoverBytes)
		}
		handovers[i] = h
	}
	return handovers, nil
}

// fit says what is wrong with a handover, if something is; both ends ask.
func fit(h *store.Handover) error {
	m := h.Message
	switch {
	case m.ClientID.IsNil():
		return errors.New("an empty client ID")
	case m.ID.IsNil():
		return errors.New("an empty message ID")
	case m.Service == "":
		return errors.New("no service")
	case len(m.Encoded) == 0:
		return errors.New("no message")
	case len(m.Encoded) > store.MaxHandover || len(m.Service)+len(m.Type) > store.MaxHandover: // which are part of the message
		return fmt.Errorf("a message of more than %d bytes", store.MaxHandover)
	}
	return nil
}

// handoverSize is what a handover counts in the bounds of those that wait, and of those that travel together.
func handoverSize(h *store.Handover) int {
	return len(h.Message.Encoded) + len(h.Message.Service) + len(h.Message.Type)
}

func toProto(h *store.Handover) *notifypb.Handover {
	return &notifypb.Handover{
		ClientId:  h.Message.ClientID[:],
		MessageId: h.Message.ID[:],
		Service:   h.Message.Service,
		Type:      h.Message.Type,
		Seq:       h.Message.Seq,
		After:     h.After,
		ContactUs: h.Contact.UnixMicro(),
		Encoded:   h.Message.Encoded,
	}
}

func fromProto(m *notifypb.Handover) (*store.Handover, error) {
	client, err := identity.ClientIDFromBytes(m.ClientId)
	if err != nil {
		return nil, err
	}
	id, err := identity.MessageIDFromBytes(m.MessageId)
	if err != nil {
		return nil, err
	}
	h := &store.Handover{
		Message: &store.PendingMessage{
			ClientID: client, ID: id, Seq: m.Seq, Service: m.Service, Type: m.Type, Encoded: m.Encoded,
		},
		After:   m.After,
		Contact: time.UnixMicro(m.ContactUs),
	}
	return h, fit(h)
}
