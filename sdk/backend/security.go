package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// TLSFiles names PEM files.
type TLSFiles struct {
	// CA has the authorities that the other side's certificate is checked with. Empty: for a Submitter the system's; a
	// Processor then asks for no certificate, which is what fs-server of today needs.
	CA string
	// Certificate and Key are what is presented to the other side; a Submitter may do without both.
	Certificate, Key string
}

// LoadTLS reads the files for a Submitter.
func (f TLSFiles) LoadTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CA != "" {
		if config.RootCAs, err = authorities(f.CA); err != nil {
			return nil, err
		}
	}
	if f.Certificate != "" || f.Key != "" {
		config.Certificates, err = f.pair()
	}
	return config, err
}

// LoadServerTLS reads the files for a Processor.
func (f TLSFiles) LoadServerTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CA != "" {
		if config.ClientCAs, err = authorities(f.CA); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	config.Certificates, err = f.pair()
	return config, err
}

func (f TLSFiles) pair() ([]tls.Certificate, error) {
	if f.Certificate == "" || f.Key == "" {
		return nil, errors.New("TLSFiles: Certificate and Key go together")
	}
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("TLSFiles: %w", err)
	}
	return []tls.Certificate{pair}, nil
}

func authorities(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLSFiles.CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("TLSFiles.CA: %s has no certificate in it", path)
	}
	return pool, nil
}

// bearer is a token that goes with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity leaves the decision to NewSubmitter, which knows about local addresses.
func (b bearer) RequireTransportSecurity() bool { return false }

// isLocal reports whether what is sent to a target stays on this machine.
func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
