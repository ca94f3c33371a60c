package agentconfig

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// ErrSignature says that a service is not signed by those who may deploy.
var ErrSignature = errors.New("the signature does not verify with the deployment key")

// VerifySignature checks the signature of a serialized ClientServiceConfig: RSASSA-PSS with SHA-256.
func VerifySignature(key *rsa.PublicKey, config, signature []byte) error {
	digest := sha256.Sum256(config)
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}
	if err := rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, options); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// authorize says why a service may not run. Without a key all may.
func (s Settings) authorize(v *Service) error {
	if s.DeploymentKey == nil || v.Signed == nil && s.AllowTextServices {
		return nil
	}
	if v.Signed == nil {
		return textpb.Problem{File: v.Path, Message: "a text service has no signature, and a deployment key is set",
			Remedy: "sign it, or set allow_text_services"}
	}
	if err := VerifySignature(s.DeploymentKey, v.Signed, v.Signature); err != nil {
		return textpb.Problem{File: v.Path, Message: err.Error(), Remedy: "have it signed with the deployment key"}
	}
	return nil
}
