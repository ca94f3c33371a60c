package deployment

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// minKeyBits is the least that agents take for a deployment key.
const minKeyBits = 2048

// ReadKey reads the private half of a deployment key: PEM, RSA, PKCS #8 or PKCS #1, not encrypted.
func ReadKey(path string) (*rsa.PrivateKey, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, textpb.Problem{File: path, Message: err.Error(), Remedy: "name a PEM file with an RSA private key of 2048 bits or more"}
	}
	return key, nil
}

func parseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("holds no PEM block")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errors.New("the key is encrypted, decrypt it first")
	}
	key, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	if bits := key.N.BitLen(); bits < minKeyBits {
		return nil, fmt.Errorf("a key of %d bits is too weak", bits)
	}
	return key, nil
}

func parseBlock(block *pem.Block) (*rsa.PrivateKey, error) {
	if block.Type == "RSA PRIVATE KEY" {
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a PEM block %q is no private key", block.Type)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is %T", key)
	}
	return private, nil
}
