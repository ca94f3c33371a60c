package clientcert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var contact = []byte("contact data")

// verify parses and checks one signature.
func verify(contactData []byte, signature *fspb.Signature) (bool, error) {
	parsed, err := clientcert.ParseSignatures([]*fspb.Signature{signature})
	return err == nil && parsed[0].Valid(contactData), err
}

// mustSign signs contact; hash 0 signs it as it is, pss says which padding RSA uses.
func mustSign(tb testing.TB, key crypto.Signer, hash crypto.Hash, pss bool) []byte {
	tb.Helper()
	digest, opts := contact, crypto.SignerOpts(hash)
	if hash != 0 {
		h := hash.New()
		h.Write(contact)
		digest = h.Sum(nil)
	}
	if pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	signature, err := key.Sign(rand.Reader, digest, opts)
	if err != nil {
		tb.Fatal(err)
	}
	return signature
}

func TestSignatureAlgorithms(t *testing.T) {
	rsaKey := mustKey[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	ecKey := mustKey[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		algorithm int32
		key       crypto.Signer
		hash      crypto.Hash
		pss       bool
		want      bool
	}{
		{1, rsaKey, crypto.SHA256, false, false},
		{2, rsaKey, crypto.MD5, false, false},
		{3, rsaKey, crypto.SHA1, false, true},
		{4, rsaKey, crypto.SHA256, false, true},
		{5, rsaKey, crypto.SHA384, false, true},
		{6, rsaKey, crypto.SHA512, false, true},
		{7, rsaKey, crypto.SHA1, false, false},
		{8, rsaKey, crypto.SHA256, false, false},
		{9, ecKey, crypto.SHA1, false, true},
		{10, ecKey, crypto.SHA256, false, true},
		{11, ecKey, crypto.SHA384, false, true},
		{12, ecKey, crypto.SHA512, false, true},
		{13, rsaKey, crypto.SHA256, true, true},
		{14, rsaKey, crypto.SHA384, true, true},
		{15, rsaKey, crypto.SHA512, true, true},
		{16, edKey, 0, false, false},
		{0, rsaKey, crypto.SHA256, false, false},
		{17, rsaKey, crypto.SHA256, false, false},
		{-1, rsaKey, crypto.SHA256, false, false},
		{4, ecKey, crypto.SHA256, false, false},   // another kind of key
		{4, rsaKey, crypto.SHA256, true, false},   // another padding
		{13, rsaKey, crypto.SHA256, false, false}, // another padding
		{10, ecKey, crypto.SHA384, false, false},  // another hash
		{1 << 30, rsaKey, crypto.SHA1, true, false},
	} {
		signature := &fspb.Signature{
			Certificate: [][]byte{mustCertify(t, test.key)},
			Algorithm:   test.algorithm,
			Signature:   mustSign(t, test.key, test.hash, test.pss),
		}
		valid, err := verify(contact, signature)
		if err != nil || valid != test.want {
			t.Errorf("algorithm %d: valid %v, error %v", test.algorithm, valid, err)
		}
		if valid, err := verify([]byte("other data"), signature); err != nil || valid {
			t.Errorf("algorithm %d over other data: valid %v, error %v", test.algorithm, valid, err)
		}
	}
}

func TestSignatureCertificates(t *testing.T) {
	key := mustKey[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer, other, bytes := mustCertify(t, key), []byte(readRecorded(t)[0].Certificate), mustSign(t, key, crypto.SHA256, false)
	for _, test := range []struct {
		name  string
		chain [][]byte
		valid bool
		err   error
	}{
		{"none", nil, false, nil}, // G-01
		{"signer", [][]byte{signer}, true, nil},
		{"signer and another", [][]byte{signer, other}, true, nil},
		{"signer second", [][]byte{other, signer}, false, nil},
		{"empty", [][]byte{{}}, false, clientcert.ErrSignature},
		{"unparsable", [][]byte{[]byte("x")}, false, clientcert.ErrSignature},
		{"unparsable second", [][]byte{signer, []byte("x")}, false, clientcert.ErrSignature},
		{"too many", slices.Repeat([][]byte{signer}, 17), false, clientcert.ErrSignature},
	} {
		valid, err := verify(contact, &fspb.Signature{Certificate: test.chain, Algorithm: 10, Signature: bytes})
		if valid != test.valid || !errors.Is(err, test.err) {
			t.Errorf("%s: valid %v, error %v", test.name, valid, err)
		}
	}
	if valid, err := verify(contact, nil); valid || err != nil {
		t.Errorf("nil: valid %v, error %v", valid, err)
	}
}

// Every algorithm number with an empty list of certificates ends an unmodified server.
func TestEmptyCertificateList(t *testing.T) { // G-01
	for algorithm := range int32(20) {
		if valid, err := verify(contact, &fspb.Signature{Algorithm: algorithm, Signature: []byte("x")}); valid || err != nil {
			t.Errorf("algorithm %d: valid %v, error %v", algorithm, valid, err)
		}
	}
}

func TestParseSignatures(t *testing.T) {
	key := mustKey[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	good := &fspb.Signature{Certificate: [][]byte{mustCertify(t, key)}, Algorithm: 10, Signature: mustSign(t, key, crypto.SHA256, false)}
	broken := &fspb.Signature{Certificate: [][]byte{{1}}}
	for _, test := range []struct {
		name       string
		signatures []*fspb.Signature
		want       []bool
		err        error
	}{
		{"none", nil, nil, nil},
		{"good and bad", []*fspb.Signature{good, {}, good}, []bool{true, false, true}, nil},
		{"broken", []*fspb.Signature{good, broken}, nil, clientcert.ErrSignature},
		{"as many as allowed", slices.Repeat([]*fspb.Signature{{}}, clientcert.MaxSignatures), make([]bool, clientcert.MaxSignatures), nil},
		{"too many", slices.Repeat([]*fspb.Signature{{}}, clientcert.MaxSignatures+1), nil, clientcert.ErrSignature},
	} {
		parsed, err := clientcert.ParseSignatures(test.signatures)
		var got []bool
		for _, signature := range parsed {
			got = append(got, signature.Valid(contact))
		}
		if !slices.Equal(got, test.want) || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, error %v", test.name, got, err)
		}
	}
}

// A key of 128 Kbit keeps a core busy for seconds, so the size is looked at first. The signatures here would verify.
func TestLargeKeys(t *testing.T) { // G-01
	for bits, want := range map[uint]bool{2048: true, 8192: true, 8200: false, 1 << 17: false} {
		key, bytes := forge(bits)
		signature := &fspb.Signature{Certificate: [][]byte{certifyOther(t, key)}, Algorithm: 4, Signature: bytes}
		if key.N.BitLen() != int(bits) {
			t.Fatalf("a key of %d bits, want %d", key.N.BitLen(), bits)
		}
		if valid, err := verify(contact, signature); err != nil || valid != want {
			t.Errorf("%d bits: valid %v, error %v, want %v", bits, valid, err, want)
		}
	}
}

// A certificate is not parsed when it is larger than any that has a use.
func TestLargeCertificates(t *testing.T) { // G-03
	key, _ := forge(1 << 20)
	if _, err := verify(contact, &fspb.Signature{Certificate: [][]byte{certifyOther(t, key)}, Algorithm: 4}); !errors.Is(err, clientcert.ErrSignature) {
		t.Errorf("error %v", err)
	}
}

// forge makes an RSA key of any size without primes, together with a signature of contact by it, SHA-256 and PKCS #1 v1.5:
// it begins with the signature, and takes for the modulus what its cube is too large by.
func forge(bits uint) (*rsa.PublicKey, []byte) {
	prefix := []byte{0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20} // of SHA-256
	digest := sha256.Sum256(contact)
	padded := slices.Repeat([]byte{0xff}, int(bits/8)-3-len(prefix)-len(digest))
	padded = slices.Concat([]byte{0, 1}, padded, []byte{0}, prefix, digest[:])
	signed := new(big.Int).SetBytes(padded)

	eighths := []int64{9, 11, 14}[(bits-1)%3] // so that the cube has the right number of bits
	root := new(big.Int).Lsh(big.NewInt(eighths), (bits-1)/3-3)
	if signed.Bit(0) == 0 {
		root.SetBit(root, 0, 1) // the modulus has to be odd
	}
	cube := new(big.Int).Exp(root, big.NewInt(3), nil)
	return &rsa.PublicKey{N: cube.Sub(cube, signed), E: 3}, root.FillBytes(make([]byte, bits/8))
}

// certifyOther makes a certificate of a key whose private half nobody has.
func certifyOther(tb testing.TB, key crypto.PublicKey) []byte {
	tb.Helper()
	issuer := mustKey[*ecdsa.PrivateKey](tb)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, issuer)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}
