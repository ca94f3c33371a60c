package main

import (
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// deployer keeps services that the server installs among the signed ones.
type deployer struct {
	key   *rsa.PublicKey
	shelf shelf
}

// shelf has the files of signed services.
type shelf interface {
	// paths lists all of them.
	paths() ([]string, error)
	// put makes or replaces a file, which the next start will find, and returns its path.
	put(name string, data []byte) (string, error)
	// drop has the next start not find a file.
	drop(path string) error
}

var _ agent.Deployer = (*deployer)(nil)

// Check implements agent.Deployer.
func (d *deployer) Check(signed *fspb.SignedClientServiceConfig) (agent.Installation, error) {
	if err := agentconfig.VerifySignature(d.key, signed.GetServiceConfig(), signed.GetSignature()); err != nil {
		return agent.Installation{}, err
	}
	config := &fspb.ClientServiceConfig{}
	if err := proto.Unmarshal(signed.ServiceConfig, config); err != nil {
		return agent.Installation{}, fmt.Errorf("service configuration: %w", err)
	}
	return agent.Installation{Config: config, Signature: signed.Signature, Origin: "the server"}, nil
}

// Keep implements agent.Deployer.
func (d *deployer) Keep(name string, signed *fspb.SignedClientServiceConfig) error {
	data, err := proto.Marshal(signed)
	if err != nil {
		return fmt.Errorf("encode service: %w", err)
	}
	old, err := d.files(name)
	if err != nil {
		return err
	}
	path, err := d.shelf.put(deployedName(name), data)
	if err != nil {
		return err
	}
	for _, other := range old {
		if other != path {
			err = errors.Join(err, d.shelf.drop(other))
		}
	}
	return err
}

// Forget implements agent.Deployer.
func (d *deployer) Forget(name string) error {
	files, err := d.files(name)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%w among the signed services of this agent: %q", agent.ErrServiceUnavailable, name)
	}
	for _, path := range files {
		err = errors.Join(err, d.shelf.drop(path))
	}
	return err
}

// deployedName is the name of the file of a service, whose own name may have any characters.
func deployedName(service string) string {
	return fmt.Sprintf("deployed-%x", sha256.Sum256([]byte(service)))
}

// files lists those that install a service of the name.
func (d *deployer) files(name string) ([]string, error) {
	paths, err := d.shelf.paths()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(paths, func(path string) bool {
		s, err := agentconfig.SignedService(path)
		return err != nil || s.Config.Name != name
	}), nil
}
