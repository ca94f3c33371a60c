package peer_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"io"
	"testing"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/test/peer"
)

// The bytes are those of the wire protocol's own examples.
func TestStreamStart(t *testing.T) {
	record, err := peer.Wrap(&fspb.ContactData{SequencingNonce: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "0110eef1" + "04" + "0a020805"
	for _, deflate := range []bool{false, true} {
		var stream bytes.Buffer
		if err := peer.RecordWriterForTest(&stream, deflate)(record); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if deflate {
			got = inflate(t, &stream, len(want)/2)
		} else {
			got = stream.Bytes()
		}
		if hex.EncodeToString(got) != want {
			t.Errorf("deflate %v: stream starts with %x, want %s", deflate, got, want)
		}
	}
}

// inflate reads what can be read of a stream that goes on.
func inflate(t *testing.T, r io.Reader, size int) []byte {
	t.Helper()
	z, err := zlib.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(z, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessageID(t *testing.T) {
	client, _ := hex.DecodeString("5cd252fb0ce89324")
	got := hex.EncodeToString(peer.MessageID(client, "TestService", []byte("AAABBBCCC")))
	if want := "790123fe4c282540d7a3986645fd05641cc07792c6a453026b45a9efd97373bc"; got != want {
		t.Errorf("message ID %s, want %s", got, want)
	}
}

func TestAppendVarint(t *testing.T) {
	for v, want := range map[uint64]string{0: "00", 1: "01", 127: "7f", 213: "d501", 20971520: "8080800a", 1<<64 - 1: "ffffffffffffffffff01"} {
		if got := hex.EncodeToString(peer.AppendVarint(nil, v)); got != want {
			t.Errorf("varint of %d: %s, want %s", v, got, want)
		}
	}
}
