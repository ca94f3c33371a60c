// Package agentconfig reads the configuration of the endpoint's agent: the main file strictly, the files of the
// configuration directory as leniently as the original does. On Windows a registry key with the files' paths may take the
// directory's place.
//
// It runs on other people's machines: it imports protobuf and the standard library, no gRPC, no SQL, no metrics.
package agentconfig

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/farspeak/farspeak/internal/config/netname"
	"github.com/farspeak/farspeak/internal/config/textpb"
	"github.com/farspeak/farspeak/internal/winreg"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
)

// Config is the main file of the agent, fleetspeak.client.generic.Config.
type Config struct {
	TrustedCerts      *x509.CertPool
	Servers           []string // host:port, in the order to try them; at least one
	Labels            []string // architecture, operating system, then the configured ones
	Directory         string   // with communicator.txt and the services; empty: RegistryKey has them
	StateFile         string   // empty: the identity is lost at the end, unless there is a RegistryKey
	Streaming         bool     // sessions rather than polls
	Proxy             *url.URL // nil: by the environment
	CertificateHeader string   // header to send the own certificate in; empty: none
	ServerName        string   // for SNI and verification; empty: the host of the server
	Settings          Settings // beyond the original's

	RegistryKey string // with state, communicator and services, on Windows; empty: they are in files
	Registry    winreg.Registry

	Warnings textpb.Problems
}

// Client reads the main file. The error has a line for each problem.
func Client(path string) (*Config, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, problems := parse(path, text, runtime.GOOS)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	c.Warnings = problems.Warnings()
	return c, nil
}

func parse(path string, text []byte, goos string) (*Config, textpb.Problems) {
	var pb genericpb.Config
	doc := textpb.Parse(path, text, &pb)
	r := doc.NewReport()
	c := &Config{
		TrustedCerts:      trustedCerts(r, pb.GetTrustedCerts()),
		Servers:           servers(r, pb.GetServer()),
		Labels:            labels(goos, pb.GetClientLabel()),
		Streaming:         pb.GetStreaming(),
		Proxy:             proxy(r, pb.GetProxy()),
		CertificateHeader: pb.GetClientCertificateHeader(),
		ServerName:        pb.GetServerName(),
		Registry:          winreg.System(),
	}
	if h := c.CertificateHeader; h != "" && !netname.IsHeader(h) {
		r.Error("client_certificate_header", "not the name of an HTTP header", "use letters, digits and dashes")
	}
	c.persistence(r, &pb, goos)
	c.Settings = settings(r, pb.GetFarspeak(), c.StateFile)
	if c.RegistryKey != "" && c.Settings.SpoolDirectory == "" && !pb.GetFarspeak().GetSpoolDisabled() {
		r.Warn("farspeak.spool_directory", "absent: messages that the server does not have are lost when the agent ends",
			"name a directory that administrators alone may read, or set spool_disabled")
	}
	return c, textpb.Join(doc.Faults(), r.Problems())
}

// trustedCerts takes every certificate that parses; one is enough.
func trustedCerts(r *textpb.Report, text string) *x509.CertPool {
	pool := x509.NewCertPool()
	good, bad := 0, 0
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			bad++
			continue
		}
		pool.AddCert(cert)
		good++
	}
	switch {
	case text == "":
		r.Error("trusted_certs", "absent", "write the PEM text of the authority that issued the server's certificate")
	case good == 0:
		r.Error("trusted_certs", "holds no PEM certificate", `write the PEM text itself, not a path, with line breaks as \n`)
	case bad > 0:
		r.Warn("trusted_certs", fmt.Sprintf("%d PEM block(s) are no certificates", bad), "remove them")
	}
	return pool
}

func servers(r *textpb.Report, values []string) []string {
	const sample = `write for example "fleet.example.com:443"`
	if len(values) == 0 {
		r.Error("server", "absent", sample)
	}
	for i, v := range values {
		field := fmt.Sprintf("server[%d]", i)
		switch host, port, err := netname.Split(v); {
		case err != nil:
			r.Error(field, fmt.Sprintf("%q is not host:port: %v", v, err), sample)
		case host == "" || port == 0:
			r.Error(field, fmt.Sprintf("nobody can connect to %q", v), sample)
		}
	}
	return slices.Clone(values)
}

// labels are those of the machine and the configured ones, verbatim but for blank ones, which the original's configurator
// writes when no label is wanted.
func labels(goos string, configured []string) []string {
	all := []string{runtime.GOARCH, goos}
	for _, l := range configured {
		if strings.TrimSpace(l) != "" {
			all = append(all, l)
		}
	}
	return all
}

// proxy does not repeat the value, which may hold a password.
func proxy(r *textpb.Report, value string) *url.URL {
	if value == "" {
		return nil
	}
	const remedy = `write for example "http://proxy.example.com:3128"`
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		r.Error("proxy", "not a URL", remedy)
		return nil
	}
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		r.Error("proxy", "the URL's scheme is not http, https or socks5", remedy)
	}
	return u
}

func (c *Config) persistence(r *textpb.Report, pb *genericpb.Config, goos string) {
	switch h := pb.GetPersistenceHandler().(type) {
	case *genericpb.Config_FilesystemHandler:
		c.Directory, c.StateFile = h.FilesystemHandler.GetConfigurationDirectory(), h.FilesystemHandler.GetStateFile()
		checkDirectory(r, "filesystem_handler.configuration_directory", c.Directory)
		if c.StateFile == "" {
			r.Warn("filesystem_handler.state_file", "absent: every start makes a new client", "name a file that survives reboots")
			return
		}
		checkDirectory(r, "filesystem_handler.state_file", filepath.Dir(c.StateFile))
	case *genericpb.Config_RegistryHandler:
		c.RegistryKey = registryKey(r, h.RegistryHandler.GetConfigurationKey(), goos)
	default:
		r.Error("filesystem_handler", "absent", `add filesystem_handler { configuration_directory: "..." state_file: "..." }`)
	}
}

// registryKey returns the key, or nothing if it cannot be one.
func registryKey(r *textpb.Report, key, goos string) string {
	const field = "registry_handler.configuration_key"
	const sample = `write for example "HKEY_LOCAL_MACHINE\\SOFTWARE\\FleetspeakClient"`
	err := winreg.CheckPath(key)
	switch {
	case goos != "windows":
		r.Error("registry_handler", "only Windows has a registry", "use filesystem_handler")
	case key == "":
		r.Error(field, "absent", sample)
	case err != nil:
		r.Error(field, err.Error(), sample)
	default:
		return key
	}
	return ""
}

// checkDirectory checks that there is a directory, links followed.
func checkDirectory(r *textpb.Report, field, path string) {
	st, err := os.Stat(path)
	switch {
	case path == "":
		r.Error(field, "absent", `write for example "/etc/farspeak"`)
	case errors.Is(err, os.ErrNotExist):
		r.Error(field, fmt.Sprintf("the directory %s does not exist", path), "create it")
	case err != nil:
		r.Error(field, fmt.Sprintf("cannot look at the directory %s", path), "let the user that the agent runs as read it")
	case !st.IsDir():
		r.Error(field, path+" is not a directory", "name a directory")
	}
}
