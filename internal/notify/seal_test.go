package notify_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// handoverKey makes distinct keys.
func handoverKey(n byte) []byte { return bytes.Repeat([]byte{n}, notify.HandoverKeySize) }

// handover makes the message with this number for a client; the text stands for the serialized message.
func handover(client identity.ClientID, seq int, text string) *store.Handover {
	var id identity.MessageID
	binary.BigEndian.PutUint64(id[24:], uint64(seq)+1)
	return &store.Handover{
		Message: &store.PendingMessage{
			ClientID: client, ID: id, Seq: int64(seq) + 1, Service: "shell", Type: "command", Encoded: []byte(text),
		},
		After:   int64(seq),
		Contact: time.UnixMicro(1_700_000_000_123_456),
	}
}

// handoverProto is a valid one, to be spoilt.
func handoverProto(text string) *notifypb.Handover {
	client, message := clientID(1), bytes.Repeat([]byte{7}, identity.MessageIDSize)
	return &notifypb.Handover{
		ClientId: client[:], MessageId: message, Service: "shell", Type: "command", Seq: 9, After: 8,
		ContactUs: 1_700_000_000_123_456, Encoded: []byte(text),
	}
}

// documentedCipher is what docs/protocol.md says of the encryption, without the code under test.
func documentedCipher(t testing.TB, key, salt []byte) cipher.AEAD {
	t.Helper()
	own, err := hkdf.Key(sha256.New, key, salt, "farspeak handover 1", 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// sealText seals any text.
func sealText(t testing.TB, key, text []byte) []byte {
	t.Helper()
	salt := sha256.Sum256(text)
	return documentedCipher(t, key, salt[:]).Seal(salt[:], make([]byte, 12), text, nil)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndOpen(t *testing.T) {
	given := []*store.Handover{
		handover(clientID(1), 0, "first"),
		handover(clientID(2), 1, strings.Repeat("x", store.MaxHandover)),
		handover(clientID(1), 2, "second"),
	}
	given[2].Message.Type, given[2].After, given[2].Contact = "", 0, time.UnixMicro(-1)
	sealed, err := notify.Seal(handoverKey(1), given)
	if err != nil {
		t.Fatal(err)
	}
	again, err := notify.Seal(handoverKey(1), given)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(sealed[:32], again[:32]) || bytes.Equal(sealed[32:], again[32:]) {
		t.Error("two seals share their salt or their text")
	}
	if bytes.Contains(sealed, []byte("second")) {
		t.Error("the message can be read") // G-17
	}
	got, err := notify.Open(handoverKey(1), sealed)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, given) {
		t.Errorf("opened: %+v", got)
	}
}

// The bytes are those that docs/protocol.md describes.
func TestSealIsAsDocumented(t *testing.T) {
	key := handoverKey(3)
	given := handover(clientID(1), 8, "text")
	sealed, err := notify.Seal(key, []*store.Handover{given})
	if err != nil {
		t.Fatal(err)
	}
	text, err := documentedCipher(t, key, sealed[:32]).Open(nil, make([]byte, 12), sealed[32:], nil)
	if err != nil {
		t.Fatal(err)
	}
	var got notifypb.Handovers
	if err := proto.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := &notifypb.Handovers{Handovers: []*notifypb.Handover{handoverProto("text")}}
	want.Handovers[0].MessageId = given.Message.ID[:]
	if !proto.Equal(&got, want) {
		t.Errorf("sealed was %v, want %v", &got, want)
	}
}

// What others can make, and what is not whole, does not open. G-17
func TestOpenRefusesForgeries(t *testing.T) {
	key := handoverKey(1)
	valid, err := notify.Seal(key, []*store.Handover{handover(clientID(1), 0, "text")})
	if err != nil {
		t.Fatal(err)
	}
	for n := range valid {
		if _, err := notify.Open(key, slices.Clone(valid[:n])); err == nil {
			t.Errorf("%d of %d bytes were opened", n, len(valid))
		}
		changed := slices.Clone(valid)
		changed[n] ^= 1
		if _, err := notify.Open(key, changed); err == nil {
			t.Errorf("opened with byte %d changed", n)
		}
	}
	for name, other := range map[string][]byte{
		"another key": handoverKey(2), "no key": nil, "a short key": key[:16], "a long key": append(handoverKey(1), 1),
	} {
		if _, err := notify.Open(other, slices.Clone(valid)); err == nil {
			t.Errorf("opened with %s", name)
		}
	}
	if _, err := notify.Open(key, append(slices.Clone(valid), 0)); err == nil {
		t.Error("opened with a byte more")
	}
	if _, err := notify.Open(key, bytes.Repeat([]byte("garbage"), 100)); err == nil {
		t.Error("garbage was opened")
	}
	if got, err := notify.Open(key, valid); err != nil || len(got) != 1 {
		t.Errorf("the valid one: %v, %v", got, err)
	}
}

// One that is not as it should be spoils all that came with it.
func TestOpenChecks(t *testing.T) {
	large := strings.Repeat("x", store.MaxHandover)
	tests := map[string]struct {
		spoil func(*notifypb.Handover)
		want  bool
	}{
		"valid":               {func(h *notifypb.Handover) {}, true},
		"without a type":      {func(h *notifypb.Handover) { h.Type = "" }, true},
		"largest":             {func(h *notifypb.Handover) { h.Encoded = []byte(large) }, true},
		"short client ID":     {func(h *notifypb.Handover) { h.ClientId = h.ClientId[:7] }, false},
		"long client ID":      {func(h *notifypb.Handover) { h.ClientId = make([]byte, 9) }, false},
		"client ID of zeros":  {func(h *notifypb.Handover) { h.ClientId = make([]byte, 8) }, false},
		"short message ID":    {func(h *notifypb.Handover) { h.MessageId = h.MessageId[:31] }, false},
		"message ID of zeros": {func(h *notifypb.Handover) { h.MessageId = make([]byte, 32) }, false},
		"no service":          {func(h *notifypb.Handover) { h.Service = "" }, false},
		"long names":          {func(h *notifypb.Handover) { h.Type = large }, false},
		"no message":          {func(h *notifypb.Handover) { h.Encoded = nil }, false},
		"large message":       {func(h *notifypb.Handover) { h.Encoded = []byte(large + "x") }, false},
	}
	for name, test := range tests {
		spoilt := handoverProto("text")
		test.spoil(spoilt)
		text := marshal(t, &notifypb.Handovers{Handovers: []*notifypb.Handover{handoverProto("text"), spoilt, handoverProto("text")}})
		got, err := notify.Open(handoverKey(1), sealText(t, handoverKey(1), text))
		if (err == nil) != test.want || test.want && len(got) != 3 || !test.want && got != nil {
			t.Errorf("%s: %d handovers, %v", name, len(got), err)
		}
	}
}

func TestOpenBounds(t *testing.T) {
	many := func(n int, text string) []byte {
		return marshal(t, &notifypb.Handovers{Handovers: slices.Repeat([]*notifypb.Handover{handoverProto(text)}, n)})
	}
	const text = 4000
	fit := notify.MaxHandoverBytes / (text + len("shell"+"command"))
	tests := map[string]struct {
		text []byte
		want int
	}{
		"none":       {nil, 0},
		"the most":   {many(notify.MaxHandovers, "x"), notify.MaxHandovers},
		"too many":   {many(notify.MaxHandovers+1, "x"), 0},
		"large":      {many(fit, strings.Repeat("x", text)), fit},
		"too large":  {many(fit+1, strings.Repeat("x", text)), 0},
		"no message": {[]byte("\xff\xff garbage"), 0},
	}
	for name, test := range tests {
		got, err := notify.Open(handoverKey(1), sealText(t, handoverKey(1), test.text))
		if len(got) != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d handovers, %v; want %d", name, len(got), err, test.want)
		}
	}
}

// A name that cannot be encoded is found before anything is sent.
func TestSealRefuses(t *testing.T) {
	bad := handover(clientID(1), 0, "text")
	bad.Message.Service = "\xff"
	if _, err := notify.Seal(handoverKey(1), []*store.Handover{bad}); err == nil {
		t.Error("a service that is no UTF-8 was sealed")
	}
	if _, err := notify.Seal(nil, []*store.Handover{handover(clientID(1), 0, "text")}); err == nil {
		t.Error("sealed without a key")
	}
}

// FuzzOpen gives any bytes as what was sealed, and as the text in a seal that is right.
func FuzzOpen(f *testing.F) {
	key := handoverKey(1)
	text := marshal(f, &notifypb.Handovers{Handovers: []*notifypb.Handover{handoverProto("text"), handoverProto("more")}})
	f.Add(sealText(f, key, text), text)
	f.Add([]byte("garbage"), []byte{})
	f.Fuzz(func(t *testing.T, sealed, text []byte) {
		_, _ = notify.Open(key, slices.Clone(sealed)) // in place
		opened, err := notify.Open(key, sealText(t, key, text))
		if err != nil {
			return
		}
		again, err := notify.Seal(key, opened)
		if err != nil {
			t.Fatalf("what was opened cannot be sealed: %v", err)
		}
		back, err := notify.Open(key, again)
		if err != nil || !reflect.DeepEqual(back, opened) {
			t.Errorf("sealed and opened again: %v, %v", back, err)
		}
	})
}
