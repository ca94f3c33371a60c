package wire_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// writes keeps each write apart, and fails from the failAt-th on.
type writes struct {
	parts  [][]byte
	failAt int
}

func (w *writes) Write(p []byte) (int, error) {
	if w.failAt > 0 && len(w.parts)+1 >= w.failAt {
		return 0, io.ErrShortWrite
	}
	w.parts = append(w.parts, bytes.Clone(p))
	return len(p), nil
}

func TestRecordWriter(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  wire.WriterConfig
		want []string
	}{
		{"to server", wire.ToServer(), []string{"0110eef1 04 0a020805", "00", "01ff"}},
		{"to client", wire.ToClient(), []string{"04 0a020805", "00", "01ff"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out writes
			w := wire.NewRecordWriter(&out, test.cfg)
			for _, body := range []string{"0a020805", "", "ff"} {
				if err := w.WriteRecord(unhex(t, body)); err != nil {
					t.Fatal(err)
				}
			}
			if len(out.parts) != len(test.want) {
				t.Fatalf("%d writes for %d records", len(out.parts), len(test.want))
			}
			for i, want := range test.want {
				if !bytes.Equal(out.parts[i], unhex(t, want)) {
					t.Errorf("write %d: %x, want %s", i, out.parts[i], want)
				}
			}
		})
	}
}

func TestRecordWriterCapsRecords(t *testing.T) {
	var out writes
	w := wire.NewRecordWriter(&out, wire.WriterConfig{MaxRecord: 3})
	if err := w.WriteRecord(make([]byte, 4)); !errors.Is(err, wire.ErrTooLarge) || len(out.parts) != 0 {
		t.Errorf("error %v, %d writes", err, len(out.parts))
	}
	if err := w.WriteRecord(make([]byte, 3)); err != nil {
		t.Errorf("a record of the right size after it: %v", err)
	}
}

func TestRecordWriterErrorIsFinal(t *testing.T) {
	out := writes{failAt: 1}
	w := wire.NewRecordWriter(&out, wire.ToServer())
	first := w.WriteRecord([]byte("x"))
	if !errors.Is(first, io.ErrShortWrite) {
		t.Fatalf("error %v", first)
	}
	out.failAt = 0
	if err := w.WriteRecord([]byte("x")); err != first || len(out.parts) != 0 {
		t.Errorf("after a failed write: error %v, %d writes", err, len(out.parts))
	}
}

func TestRecordsOfContactData(t *testing.T) {
	for _, test := range []struct {
		name string
		got  []byte
		want *fspb.ContactData
	}{
		{"ack", wire.AppendAck(nil, 1), &fspb.ContactData{AckIndex: 1}},
		{"large ack", wire.AppendAck(nil, 1<<64-1), &fspb.ContactData{AckIndex: 1<<64 - 1}},
		{"done sending", wire.AppendDoneSending(nil), &fspb.ContactData{DoneSending: true}},
		{"nonce", wire.AppendRecord(nil, wire.AppendContactData(nil, 5, nil)), &fspb.ContactData{SequencingNonce: 5}},
	} {
		body, err := proto.Marshal(test.want)
		if err != nil {
			t.Fatal(err)
		}
		if want := wire.AppendRecord(nil, body); !bytes.Equal(test.got, want) {
			t.Errorf("%s: %x, want %x", test.name, test.got, want)
		}
	}
	if got := wire.AppendAck([]byte("a"), 1); !bytes.Equal(got, unhex(t, "61 022001")) {
		t.Errorf("ack of record 1 appended: %x", got)
	}
	if got := wire.AppendDoneSending(nil); !bytes.Equal(got, unhex(t, "022801")) {
		t.Errorf("done sending: %x", got)
	}
}

func TestAppendContactData(t *testing.T) {
	messages := []*fspb.Message{
		{MessageId: []byte("id"), Source: &fspb.Address{ServiceName: "sink"}, MessageType: "Ask"},
		{},
		{MessageType: string(bytes.Repeat([]byte("x"), 300))},
	}
	for _, test := range []*fspb.ContactData{
		{},
		{SequencingNonce: 1<<64 - 1},
		{Messages: messages},
		{SequencingNonce: 5, Messages: messages},
	} {
		want, err := proto.Marshal(test)
		if err != nil {
			t.Fatal(err)
		}
		var encoded [][]byte
		size := len(wire.AppendContactData(nil, test.SequencingNonce, nil))
		for _, m := range test.Messages {
			one, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			encoded = append(encoded, one)
			size += wire.MessageSize(len(one))
		}
		got := wire.AppendContactData([]byte("before"), test.SequencingNonce, encoded)
		if !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%v: %x, want %x", test, got, want)
		}
		if size != len(want) {
			t.Errorf("%v: MessageSize adds up to %d, want %d", test, size, len(want))
		}
	}
}

func TestNonce(t *testing.T) {
	seen := map[uint64]bool{0: true}
	for range 100 {
		nonce := wire.NewNonce()
		if seen[nonce] {
			t.Fatalf("%d is zero or came twice", nonce)
		}
		seen[nonce] = true
	}
}
