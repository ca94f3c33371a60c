package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/codes"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
)

// settings are the parts of the configuration files that fs-server lives by.
type settings struct {
	server   config.Server
	store    config.Store
	services *config.Services
}

// load reads both files and logs nothing: the warnings are in what it returns.
func load(componentsPath, servicesPath string) (settings, error) {
	file, err := config.Load(componentsPath)
	if err != nil {
		return settings{}, err
	}
	var s settings
	if s.server, err = file.Server(); err != nil {
		return settings{}, err
	}
	if s.store, err = file.Store(); err != nil {
		return settings{}, err
	}
	s.services, err = config.LoadServices(servicesPath)
	return s, err
}

// serverConfig maps the settings onto the server's Config; what is opened at start is left out.
func (s settings) serverConfig() server.Config {
	c := s.server
	return server.Config{
		RequiredLabel:      c.RequiredLabel,
		DisableStreaming:   !c.Listener.Streaming,
		AuthorizeFiles:     c.Listener.FileAuthorization,
		StreamLifetime:     c.StreamLifetime,
		LongStreamLifetime: c.LongStreamLifetime,
		FullHandshakes:     c.FullHandshakes,
		SweepInterval:      c.SweepInterval,
		RedeliveryInterval: c.RedeliveryInterval,
		BroadcastInterval:  s.services.BroadcastPollTime,
		DrainTimeout:       c.DrainTimeout,
		RecordMemory:       c.RecordMemoryBytes,
		MaxPushBytes:       c.MaxPushBytes,
		Registrations: server.RegistrationLimits{
			PerSecond:           c.RegistrationsPerSecond,
			PerSecondAndAddress: c.RegistrationsPerSecondPerAddress,
		},
	}
}

// servicesConfig does the same for the services.
func (s settings) servicesConfig() services.Config {
	c := s.server
	mapped := services.Config{
		ServiceBudget:      c.ServiceBudget,
		BacklogBudget:      c.BacklogBudget,
		UnservedAfter:      c.UnservedAfter,
		KeepResults:        c.KeepServiceResults,
		BacklogMaxMessages: c.BacklogMaxMessages,
		BacklogMaxAttempts: c.BacklogMaxAttempts,
		MetricLabels:       c.MetricLabels,
	}
	for _, code := range c.PermanentCodes {
		mapped.PermanentCodes = append(mapped.PermanentCodes, codes.Code(code))
	}
	for _, service := range s.services.Services {
		mapped.Services = append(mapped.Services, serviceSpec(service))
	}
	return mapped
}

func serviceSpec(s config.Service) services.Spec {
	spec := services.Spec{Name: s.Name, Factory: s.Factory, MaxParallelism: s.MaxParallelism}
	if s.GRPC != nil {
		spec.GRPC = &services.Backend{Target: s.GRPC.Target, Insecure: s.GRPC.Insecure, Roots: s.GRPC.Roots}
	}
	return spec
}

// modes names the front-end modes of the configuration as clientcert does.
var modes = map[config.FrontendMode]clientcert.Mode{
	config.MutualTLS:               clientcert.MTLS,
	config.HTTPSHeader:             clientcert.HTTPSHeader,
	config.HTTPSHeaderChecksum:     clientcert.HTTPSHeaderChecksum,
	config.CleartextHeader:         clientcert.CleartextHeader,
	config.CleartextHeaderChecksum: clientcert.CleartextHeaderChecksum,
	config.CleartextXFCC:           clientcert.CleartextXFCC,
}

func extractor(frontend config.Frontend) (*clientcert.Extractor, error) {
	return clientcert.New(clientcert.Config{
		Mode:              modes[frontend.Mode],
		CertificateHeader: frontend.CertificateHeader,
		ChecksumHeader:    frontend.ChecksumHeader,
		TrustedSources:    frontend.TrustedSources,
	})
}

// loopback is where notifications are taken when no address is configured: fs-admin of the same machine finds it in the
// store.
const loopback = "127.0.0.1:0"

// notificationAddress is what the others are told: the configured public address, or the bound one. A wildcard that was
// bound without a public address is told as this machine's name, which other machines may know.
func notificationAddress(configured config.Notifications, bound net.Addr) string {
	if configured.PublicAddress != "" {
		return configured.PublicAddress
	}
	host, port, err := net.SplitHostPort(bound.String())
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return bound.String()
	}
	name, err := os.Hostname()
	if err != nil {
		return bound.String()
	}
	return net.JoinHostPort(name, port)
}

// newServerID names this process among all that run or ever ran.
func newServerID() string {
	name, _ := os.Hostname() // only for people to read
	return fmt.Sprintf("%s-%s", cmp.Or(name, "fs-server"), rand.Text()[:12])
}
