package main

import (
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/disk"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// deployer keeps services that the server installs among those of the services directory.
type deployer struct {
	key       *rsa.PublicKey
	directory string
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
	if err := os.Mkdir(d.directory, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	old, err := d.files(name)
	if err != nil {
		return err
	}
	path := d.path(name)
	if err := disk.Replace(path, data); err != nil {
		return err
	}
	for _, other := range old {
		if other != path {
			err = errors.Join(err, os.Remove(other))
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
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, disk.SyncDir(d.directory))
}

// path is the file of a service, whose name may have any characters.
func (d *deployer) path(name string) string {
	return filepath.Join(d.directory, fmt.Sprintf("deployed-%x", sha256.Sum256([]byte(name))))
}

// files lists those that install a service of the name.
func (d *deployer) files(name string) ([]string, error) {
	entries, err := os.ReadDir(d.directory)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		path := filepath.Join(d.directory, e.Name())
		if s, err := agentconfig.SignedService(path); err == nil && s.Config.Name == name {
			out = append(out, path)
		}
	}
	return out, nil
}
