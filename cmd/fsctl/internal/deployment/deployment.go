// Package deployment makes what an agent with a deployment key takes as a service: a serialized ClientServiceConfig and a
// signature over those very bytes, RSASSA-PSS with SHA-256.
package deployment

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/config/textpb"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// ReadConfig reads a service's configuration as text. Unlike an agent, which passes over unknown fields of its
// textservices, it refuses them: here somebody is there to mend a mistyped name.
func ReadConfig(path string) (*fspb.ClientServiceConfig, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &fspb.ClientServiceConfig{}
	document := textpb.Parse(path, text, config)
	if err := document.Faults().Err(); err != nil {
		return nil, err
	}
	report := document.NewReport()
	if !LegalName(config.Name) {
		report.Error("name", fmt.Sprintf("%q cannot be a service's name", config.Name), "name the service as its messages do")
	}
	if config.Factory == "" {
		report.Error("factory", "absent", "write Daemon, Stdin, Socket or NOOP")
	}
	if err := report.Problems().Err(); err != nil {
		return nil, err
	}
	return config, nil
}

// LegalName says whether a service of an agent can have a name: the reserved ones mean the agent itself.
func LegalName(name string) bool {
	switch strings.TrimSpace(name) {
	case "", "system", "client":
		return false
	}
	return true
}

// Sign makes a signed configuration, with now as the time of it if the configuration has none.
func Sign(key *rsa.PrivateKey, config *fspb.ClientServiceConfig, now time.Time) (*fspb.SignedClientServiceConfig, error) {
	if config.SignedTime == nil {
		config = proto.CloneOf(config)
		config.SignedTime = timestamppb.New(now)
	}
	data, err := proto.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode service %q: %w", config.Name, err)
	}
	digest := sha256.Sum256(data)
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		return nil, fmt.Errorf("sign service %q: %w", config.Name, err)
	}
	return &fspb.SignedClientServiceConfig{ServiceConfig: data, Signature: signature}, nil
}

// ReadSigned reads a signed configuration, as it stands in an agent's directory of signed services. Whether the signature
// is good only those can tell who have the key.
func ReadSigned(path string) (*fspb.SignedClientServiceConfig, error) {
	service, err := agentconfig.SignedService(path)
	if err != nil {
		return nil, err
	}
	if len(service.Signature) == 0 {
		return nil, textpb.Problem{File: path, Field: "signature", Message: "absent", Remedy: "sign service_config with the deployment key"}
	}
	return &fspb.SignedClientServiceConfig{ServiceConfig: service.Signed, Signature: service.Signature}, nil
}
