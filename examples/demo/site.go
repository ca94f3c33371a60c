package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/prototext"

	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"

	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
)

// inventory is where the backend keeps its configuration, from the top of the repository.
const inventory = "examples/inventory"

// inventoryTarget is the backend's address in that configuration.
const inventoryTarget = "localhost:9090"

// site is an installation in a temporary folder.
type site struct {
	bin, dir string

	// Addresses on this machine.
	clients, admin, backend                            string
	serverHealth, serverStats, adminHealth, adminStats string

	processes []*process
	ended     chan *process // those that end, also by themselves
}

func newSite(bin string) (*site, error) {
	dir, err := os.MkdirTemp("", "farspeak-demo-")
	if err != nil {
		return nil, err
	}
	s := &site{bin: bin, dir: dir, ended: make(chan *process, clientCount+2)}
	return s, freeAddresses(&s.clients, &s.admin, &s.backend, &s.serverHealth, &s.serverStats, &s.adminHealth, &s.adminStats)
}

// freeAddresses finds ports on which nobody listens. All are held until the last is found, so that they differ.
func freeAddresses(addresses ...*string) (err error) {
	for _, address := range addresses {
		listener, listenErr := net.Listen("tcp", "localhost:0")
		if listenErr != nil {
			return fmt.Errorf("find a free port: %w", listenErr)
		}
		defer func() { err = errors.Join(err, listener.Close()) }()
		*address = listener.Addr().String()
	}
	return nil
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// configure makes all files: keys and main configurations by fsctl, as an operator would, the rest from the example.
func (s *site) configure(ctx context.Context) error {
	if err := writeText(s.path("configurator.config"), s.description()); err != nil {
		return err
	}
	err := s.runToEnd(ctx, io.Discard, "fsctl", "config", "generate", "--config", s.path("configurator.config"))
	if err != nil {
		return err
	}
	services, err := os.ReadFile(filepath.Join(inventory, "server.services.config"))
	if err != nil {
		return fmt.Errorf("%w; run this from the top of the repository", err)
	}
	services = bytes.ReplaceAll(services, []byte(inventoryTarget), []byte(s.backend))
	if err := os.WriteFile(s.path("server.services.config"), services, 0o600); err != nil {
		return err
	}
	for i := range clientCount {
		if err := s.configureClient(clientName(i)); err != nil {
			return err
		}
	}
	return nil
}

// description is what "fsctl config generate" reads.
func (s *site) description() *configpb.Config {
	return &configpb.Config{
		ConfigurationName: "Farspeak demo",
		ComponentsConfig: &componentspb.Config{
			HttpsConfig:        &componentspb.HttpsConfig{ListenAddress: s.clients},
			AdminConfig:        &componentspb.AdminConfig{ListenAddress: s.admin},
			StatsConfig:        &componentspb.StatsConfig{Address: s.serverStats},
			HealthCheckConfig:  &componentspb.HealthCheckConfig{ListenAddress: s.serverHealth},
			SqliteDatabasePath: s.path("farspeak.db"),
			// fs-server takes the listeners above, so that fs-admin, on the same machine, needs its own.
			Farspeak: &settingspb.Settings{Admin: &settingspb.Admin{HealthCheckAddress: s.adminHealth, StatsAddress: s.adminStats}},
			// fs-server listens for notifications at a port of its own choice, which fs-admin finds in the store.
			NotificationUseHttpNotifier: true,
		},
		TrustedCertFile:                  s.path("ca.pem"),
		TrustedCertKeyFile:               s.path("ca-key.pem"),
		ServerCertFile:                   s.path("server.pem"),
		ServerCertKeyFile:                s.path("server-key.pem"),
		ServerComponentConfigurationFile: s.path("server.components.config"),
		LinuxClientConfigurationFile:     s.path("linux.client.configuration"),
		PublicHostPort:                   []string{s.clients},
	}
}

func clientName(i int) string { return fmt.Sprintf("fs-client-%d", i+1) }

// configureClient gives a client its own folder, where the generated file has the place that packages use.
func (s *site) configureClient(name string) error {
	text, err := os.ReadFile(s.path("linux.client.configuration"))
	if err != nil {
		return err
	}
	config := &genericpb.Config{}
	if err := prototext.Unmarshal(text, config); err != nil {
		return err
	}
	config.ClientLabel = []string{"demo", name}
	config.PersistenceHandler = &genericpb.Config_FilesystemHandler{FilesystemHandler: &genericpb.FilesystemHandler{
		ConfigurationDirectory: s.path(name),
		StateFile:              s.path(name, "state"),
	}}
	if err := os.MkdirAll(s.path(name, "services"), 0o700); err != nil { // signed services; there are none
		return err
	}
	if err := os.CopyFS(s.path(name, "textservices"), os.DirFS(filepath.Join(inventory, "textservices"))); err != nil {
		return err
	}
	return writeText(s.path(name, "client.config"), config)
}

// startAll starts the daemons and clients and waits until they are ready for work.
func (s *site) startAll(ctx context.Context) error {
	components := s.path("server.components.config")
	if err := s.start("fs-server", "fs-server", "--logtostderr", "--components_config", components,
		"--services_config", s.path("server.services.config")); err != nil {
		return err
	}
	if err := s.start("fs-admin", "fs-admin", "--logtostderr", "--components_config", components); err != nil {
		return err
	}
	for i := range clientCount {
		name := clientName(i)
		if err := s.start(name, "fs-client", "--logtostderr", "--config", s.path(name, "client.config")); err != nil {
			return err
		}
	}
	for _, wait := range []func(context.Context) error{
		s.ready("fs-server", s.serverHealth), s.ready("fs-admin", s.adminHealth), s.clientsConnected,
	} {
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runBackend asks all clients for all facts.
func (s *site) runBackend(ctx context.Context) error {
	return s.runToEnd(ctx, os.Stdout, "inventory", "-admin", s.admin, "-listen", s.backend)
}

// stop ends the clients first, then the daemons that they are connected to.
func (s *site) stop() error {
	var errs []error
	for _, p := range slices.Backward(s.processes) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

func (s *site) printInvitation(out io.Writer) {
	bin := s.bin
	if here, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(here, bin); err == nil {
			bin = relative
		}
	}
	fmt.Fprintf(out, `
It stays up until Ctrl-C. In another terminal:

  export FSCTL_ADMIN=%[2]s
  %[1]s/fsctl client list
  %[1]s/fsctl client list | %[1]s/fsctl message send - --service inventory-kernel --stdin_args=00 --wait
  %[1]s/fsctl backlog status     # the answers to it, waiting: the backend below takes them
  %[1]s/inventory -admin %[2]s -listen %[3]s

Metrics are at http://%[4]s/metrics and http://%[5]s/metrics, files and logs in %[6]s.
`, bin, s.admin, s.backend, s.serverStats, s.adminStats, s.dir)
}
