package agentconfig

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
)

// Settings are those that the original does not have; their zero values mean the defaults of farspeak.settings.Agent.
type Settings struct {
	SpoolDirectory     string // empty: no spool
	SpoolMaxBytes      uint64
	SpoolFsync         settingspb.SpoolFsync
	SpoolFsyncInterval time.Duration
	// DeploymentKey verifies signed services. Nil: nothing is verified.
	DeploymentKey     *rsa.PublicKey
	AllowTextServices bool // although there is a DeploymentKey
	// StatusDisabled is also set where there is no place for the socket.
	StatusDisabled bool
}

const minSpoolBytes = 32 << 20

// settings reads what is ours. stateFile is the place beside which files go by default.
func settings(r *textpb.Report, pb *settingspb.Agent, stateFile string) Settings {
	s := Settings{
		SpoolDirectory:     pb.GetSpoolDirectory(),
		SpoolMaxBytes:      pb.GetSpoolMaxBytes(),
		SpoolFsync:         pb.GetSpoolFsync(),
		SpoolFsyncInterval: pb.GetSpoolFsyncInterval().AsDuration(),
		AllowTextServices:  pb.GetAllowTextServices(),
		StatusDisabled:     pb.GetStatusDisabled(),
	}
	switch {
	case pb.GetSpoolDisabled():
		s.SpoolDirectory = ""
	case s.SpoolDirectory != "":
		checkDirectory(r, "farspeak.spool_directory", filepath.Dir(s.SpoolDirectory))
	case stateFile != "":
		s.SpoolDirectory = stateFile + ".spool"
	}
	s.StatusDisabled = s.StatusDisabled || stateFile == "" && s.SpoolDirectory == ""
	if n := s.SpoolMaxBytes; n != 0 && n < minSpoolBytes {
		r.Error("farspeak.spool_max_bytes", fmt.Sprintf("%d is too little", n), "give it at least 33554432 bytes, or set spool_disabled")
	} else if n > 1<<50 {
		r.Error("farspeak.spool_max_bytes", fmt.Sprintf("%d is more than any disk has", n), "leave it out for 256 MiB")
	}
	if _, known := settingspb.SpoolFsync_name[int32(s.SpoolFsync)]; !known {
		r.Error("farspeak.spool_fsync", fmt.Sprintf("%d is unknown", s.SpoolFsync), "write SPOOL_FSYNC_ALWAYS, _INTERVAL or _NEVER")
	}
	if s.SpoolFsyncInterval < 0 {
		r.Error("farspeak.spool_fsync_interval", "negative", "leave it out for one second")
	}
	s.DeploymentKey = deploymentKey(r, pb.GetDeploymentPublicKeyFile())
	return s
}

// deploymentKey never leaves out the check that a key stands for: a file that cannot be used is an error.
func deploymentKey(r *textpb.Report, path string) *rsa.PublicKey {
	if path == "" {
		return nil
	}
	key, err := readPublicKey(path)
	if err != nil {
		r.Error("farspeak.deployment_public_key_file", err.Error(), "name a PEM file with an RSA public key of 2048 bits or more")
	}
	return key
}

const minKeyBits = 2048

func readPublicKey(path string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the file holds no PEM block")
	}
	key, err := parsePublicKey(block)
	if err != nil {
		return nil, err
	}
	if key.N.BitLen() < minKeyBits {
		return nil, fmt.Errorf("a key of %d bits is too weak", key.N.BitLen())
	}
	return key, nil
}

func parsePublicKey(block *pem.Block) (*rsa.PublicKey, error) {
	if block.Type == "RSA PUBLIC KEY" {
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a PEM block %q is no public key", block.Type)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key is %T", key)
	}
	return public, nil
}
