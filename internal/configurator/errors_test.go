package configurator_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/configurator"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// TestErrors wants each error to name the field, and what it is about or what helps.
func TestErrors(t *testing.T) {
	garbageKey := []byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n")
	for name, c := range map[string]struct {
		prepare func(t *testing.T, c *configpb.Config)
		want    []string
	}{
		"no name": {
			func(t *testing.T, c *configpb.Config) { c.ConfigurationName = "" },
			[]string{"configuration_name", "required"},
		},
		"no components": {
			func(t *testing.T, c *configpb.Config) { c.ComponentsConfig = nil },
			[]string{"components_config is required", "components_config.https_config is required"},
		},
		"no listen address": {
			func(t *testing.T, c *configpb.Config) { c.ComponentsConfig.HttpsConfig.ListenAddress = "" },
			[]string{"components_config.https_config.listen_address", "required"},
		},
		"several at once": {
			func(t *testing.T, c *configpb.Config) {
				c.TrustedCertFile, c.ServerCertFile, c.ServerCertKeyFile, c.ServerComponentConfigurationFile = "", "", "", ""
			},
			[]string{"trusted_cert_file", "server_cert_file", "server_cert_key_file", "server_component_configuration_file"},
		},
		"two outputs in one file": {
			func(t *testing.T, c *configpb.Config) {
				c.DarwinClientConfigurationFile = filepath.Dir(c.LinuxClientConfigurationFile) + "/./" + filepath.Base(c.LinuxClientConfigurationFile)
			},
			[]string{"linux_client_configuration_file", "darwin_client_configuration_file", "a file of its own"},
		},
		"output over a key": {
			func(t *testing.T, c *configpb.Config) { c.ServerComponentConfigurationFile = c.ServerCertKeyFile },
			[]string{"server_cert_key_file", "server_component_configuration_file"},
		},
		"no key file for a new authority": {
			func(t *testing.T, c *configpb.Config) { c.TrustedCertKeyFile = "" },
			[]string{"trusted_cert_key_file is required", "ca.pem does not exist"},
		},
		"authority is a key": {
			func(t *testing.T, c *configpb.Config) { writeFile(t, c.TrustedCertFile, garbageKey) },
			[]string{"trusted_cert_file", "ca.pem", "first PEM block is EC PRIVATE KEY"},
		},
		"authority is no PEM": {
			func(t *testing.T, c *configpb.Config) { writeFile(t, c.TrustedCertFile, []byte("hello")) },
			[]string{"trusted_cert_file", "ca.pem", "no PEM block"},
		},
		"authority is a directory": {
			func(t *testing.T, c *configpb.Config) { c.TrustedCertFile = t.TempDir() },
			[]string{"trusted_cert_file", "is a directory"},
		},
		"authority is not text": {
			func(t *testing.T, c *configpb.Config) {
				writeFile(t, c.TrustedCertFile, append([]byte{0xff, '\n'}, newAuthority(t, "x", newECKey(t), now.Add(day))...))
			},
			[]string{"trusted_cert_file", "UTF-8"},
		},
		"garbage in the authority's key": {
			func(t *testing.T, c *configpb.Config) {
				generate(t, c)
				writeFile(t, c.TrustedCertKeyFile, garbageKey)
			},
			[]string{"trusted_cert_key_file", "ca-key.pem"},
		},
		"curve parameters before the authority's key": {
			func(t *testing.T, c *configpb.Config) {
				generate(t, c)
				writeFile(t, c.TrustedCertKeyFile, encode(t, "EC PARAMETERS", []byte{6, 1, 0}, nil))
			},
			[]string{"trusted_cert_key_file", "first PEM block is EC PARAMETERS", "put an unencrypted"},
		},
		"key of another authority": {
			func(t *testing.T, c *configpb.Config) {
				writeFile(t, c.TrustedCertFile, newAuthority(t, "x", newECKey(t), now.Add(day)))
				der, err := x509.MarshalECPrivateKey(newECKey(t))
				writeFile(t, c.TrustedCertKeyFile, encode(t, "EC PRIVATE KEY", der, err))
			},
			[]string{"trusted_cert_key_file", "is not the key of a certificate in"},
		},
		"server key missing": {
			func(t *testing.T, c *configpb.Config) {
				generate(t, c)
				if err := os.Remove(c.ServerCertKeyFile); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"server_cert_key_file", "no such file"},
		},
		"server key of another certificate": {
			func(t *testing.T, c *configpb.Config) {
				generate(t, c)
				writeFile(t, c.ServerCertKeyFile, readFile(t, c.TrustedCertKeyFile))
			},
			[]string{"server_cert_file", "server_cert_key_file", "are not a certificate and its key"},
		},
		"address without port": {
			func(t *testing.T, c *configpb.Config) { c.PublicHostPort = []string{"fleet.example.com"} },
			[]string{`public_host_port "fleet.example.com"`, "missing port", "write host:port"},
		},
		"directory missing": {
			func(t *testing.T, c *configpb.Config) {
				c.LinuxClientConfigurationFile = filepath.Join(t.TempDir(), "none", "client.config")
			},
			[]string{"linux_client_configuration_file", "make the directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			input, _ := newInput(t)
			c.prepare(t, input)
			_, err := configurator.Generate(input, configurator.Options{Now: now})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// TestAddressWithoutPortNeedsNoCertificate: the addresses concern only those who make a certificate for them.
func TestAddressWithoutPortNeedsNoCertificate(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	input.PublicHostPort = []string{"fleet.example.com"}
	generate(t, input)
}

func TestNothingWrittenForBadInput(t *testing.T) {
	input, dir := newInput(t)
	input.ComponentsConfig.HttpsConfig.ListenAddress = ""
	if _, err := configurator.Generate(input, configurator.Options{Now: now}); err == nil {
		t.Fatal("no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("found %v (%v), want no files", entries, err)
	}
}
