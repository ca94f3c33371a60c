package configurator

import (
	"errors"
	"fmt"
	"path/filepath"

	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// validate finds what no run can do without, before anything is written, and names all of it at once.
func validate(input *configpb.Config) error {
	https := input.GetComponentsConfig().GetHttpsConfig()
	var errs []error
	for _, f := range []struct {
		name   string
		given  bool
		remedy string
	}{
		{"configuration_name", input.GetConfigurationName() != "", "give the installation a name, for example \"Example\""},
		{"trusted_cert_file", input.GetTrustedCertFile() != "", "name the PEM file of the certificate authority; it is made if it does not exist"},
		{"server_cert_file", input.GetServerCertFile() != "", "name the PEM file of the server's certificate; it is made if it does not exist"},
		{"server_cert_key_file", input.GetServerCertKeyFile() != "", "name the PEM file of the server's private key"},
		{"server_component_configuration_file", input.GetServerComponentConfigurationFile() != "", "name the components file to write"},
		{"components_config", input.GetComponentsConfig() != nil, "add what the components file should start from"},
		{"components_config.https_config", https != nil, "add the client listener"},
		{"components_config.https_config.listen_address", https.GetListenAddress() != "", "say where clients connect, for example \":443\""},
	} {
		if !f.given {
			errs = append(errs, fmt.Errorf("field %s is required: %s", f.name, f.remedy))
		}
	}
	return errors.Join(append(errs, checkOutputs(input)...)...)
}

// pathField is a field of the input that names a file.
type pathField struct {
	name, path string
}

// checkOutputs refuses outputs that would overwrite each other, a certificate or a key.
func checkOutputs(input *configpb.Config) []error {
	seen := map[string]string{} // path to the field that names it
	for _, f := range []pathField{
		{"trusted_cert_file", input.GetTrustedCertFile()},
		{"trusted_cert_key_file", input.GetTrustedCertKeyFile()},
		{"server_cert_file", input.GetServerCertFile()},
		{"server_cert_key_file", input.GetServerCertKeyFile()},
	} {
		if f.path != "" {
			seen[filepath.Clean(f.path)] = f.name
		}
	}
	outputs := []pathField{{"server_component_configuration_file", input.GetServerComponentConfigurationFile()}}
	for _, p := range platforms {
		outputs = append(outputs, pathField{p.field, p.path(input)})
	}
	var errs []error
	for _, f := range outputs {
		if f.path == "" {
			continue
		}
		path := filepath.Clean(f.path)
		if other, taken := seen[path]; taken {
			errs = append(errs, fmt.Errorf("fields %s and %s both name %s: give each a file of its own", other, f.name, path))
		}
		seen[path] = f.name
	}
	return errs
}
