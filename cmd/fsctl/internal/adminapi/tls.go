package adminapi

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

func (o *Options) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{ServerName: o.ServerName}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca_file %s: no certificate in it: use a PEM file", o.CAFile)
		}
	}
	if o.Pinned != nil {
		config.InsecureSkipVerify = true // VerifyConnection is stricter
		config.VerifyConnection = o.checkPinned
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("--cert_file and --key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (o *Options) checkPinned(state tls.ConnectionState) error {
	if !bytes.Equal(state.PeerCertificates[0].Raw, o.Pinned) {
		return errors.New("the certificate is not the one in the components file: was the daemon started with another?")
	}
	return nil
}
