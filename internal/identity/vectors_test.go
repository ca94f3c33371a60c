package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
)

// Recorded from the original: what its server makes of keys and source IDs.
type recordedIDs struct {
	ClientIDs []struct {
		CertificateDER hexBytes `json:"certificate_der"`
		SPKIDER        hexBytes `json:"spki_der"`
		ClientID       string   `json:"client_id"`
	} `json:"client_ids"`
	MessageIDs []struct {
		ClientID        string   `json:"client_id"`
		ServiceName     string   `json:"service_name"`
		SourceMessageID hexBytes `json:"source_message_id"`
		MessageID       string   `json:"message_id"`
	} `json:"message_ids"`
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func readRecordedIDs(t *testing.T) recordedIDs {
	t.Helper()
	text, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded recordedIDs
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded.ClientIDs) == 0 || len(recorded.MessageIDs) == 0 {
		t.Fatal("testdata/ids.json holds no IDs")
	}
	return recorded
}

func TestRecordedClientIDs(t *testing.T) {
	for _, recorded := range readRecordedIDs(t).ClientIDs {
		certificate, err := x509.ParseCertificate(recorded.CertificateDER)
		if err != nil {
			t.Fatal(err)
		}
		fromKey, err := identity.ClientIDFromKey(certificate.PublicKey)
		if err != nil || fromKey.String() != recorded.ClientID {
			t.Errorf("key of %s gives %v, %v", recorded.ClientID, fromKey, err)
		}
		if fromDER := identity.ClientIDFromSPKI(recorded.SPKIDER); fromDER != fromKey {
			t.Errorf("SPKI of %s gives %v", recorded.ClientID, fromDER)
		}
	}
}

func TestRecordedMessageIDs(t *testing.T) {
	for _, recorded := range readRecordedIDs(t).MessageIDs {
		client := mustParseClientID(t, recorded.ClientID)
		got := identity.MessageIDFor(client, recorded.ServiceName, recorded.SourceMessageID)
		if got.String() != recorded.MessageID {
			t.Errorf("message of %s from service %s has ID %v, want %s", client, recorded.ServiceName, got, recorded.MessageID)
		}
	}
}

// The client whose private key is the number 1, so that its public key is the generator of P-256.
const (
	generatorSPKI = "3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d81" +
		"2deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
	generatorClientID = "5cd252fb0ce89324"
)

func TestGeneratorClientID(t *testing.T) {
	der, err := hex.DecodeString(generatorSPKI)
	if err != nil {
		t.Fatal(err)
	}
	if got := identity.ClientIDFromSPKI(der); got.String() != generatorClientID {
		t.Errorf("SPKI gives %v, want %s", got, generatorClientID)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := identity.ClientIDFromKey(key.Public()); err != nil || got.String() != generatorClientID {
		t.Errorf("key gives %v, %v, want %s", got, err, generatorClientID)
	}
}

func TestClientIDFromForeignKey(t *testing.T) {
	for _, key := range []any{nil, "key", []byte{1}} {
		if got, err := identity.ClientIDFromKey(key); err == nil || !got.IsNil() {
			t.Errorf("key %v gives %v, %v", key, got, err)
		}
	}
}

func TestMessageIDFor(t *testing.T) {
	client := mustParseClientID(t, generatorClientID)
	got := identity.MessageIDFor(client, "TestService", []byte("AAABBBCCC"))
	if want := "790123fe4c282540d7a3986645fd05641cc07792c6a453026b45a9efd97373bc"; got.String() != want {
		t.Errorf("ID is %v, want %s", got, want)
	}
	others := map[string]identity.MessageID{
		"client":    identity.MessageIDFor(identity.ClientID{1}, "TestService", []byte("AAABBBCCC")),
		"service":   identity.MessageIDFor(client, "TestServic", []byte("eAAABBBCCC")),
		"source ID": identity.MessageIDFor(client, "TestService", []byte("AAABBBCCD")),
		"length":    identity.MessageIDFor(client, "TestService", bytes.Repeat([]byte("A"), 1000)),
	}
	for what, other := range others {
		if other == got {
			t.Errorf("another %s gives the same ID", what)
		}
	}
}

func mustParseClientID(t testing.TB, text string) identity.ClientID {
	t.Helper()
	id, err := identity.ParseClientID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
