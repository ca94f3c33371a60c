package harness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/peer"
)

// Daemon is a running fs-server or fs-admin.
type Daemon struct {
	*Process
	HealthAddress string
	StatsAddress  string
}

// Server is a running fs-server.
type Server struct {
	Daemon
	// ClientAddress is where agents connect.
	ClientAddress string

	site *Site
}

// Admin is a running fs-admin.
type Admin struct {
	Daemon
	// Address is where gRPC clients connect.
	Address string
}

// StartServer runs an fs-server and waits until it is ready. adjust may change its configuration; nil leaves it.
func (s *Site) StartServer(name string, adjust func(*componentspb.Config)) *Server {
	s.tb.Helper()
	server := s.LaunchServer(name, adjust)
	server.AwaitReady()
	return server
}

// LaunchServer is StartServer without the wait.
func (s *Site) LaunchServer(name string, adjust func(*componentspb.Config)) *Server {
	s.tb.Helper()
	config := s.serverConfig()
	if adjust != nil {
		adjust(config)
	}
	server := &Server{
		Daemon:        daemonOf(config),
		ClientAddress: config.HttpsConfig.ListenAddress,
		site:          s,
	}
	server.Process = Start(s.tb, s.Dir, name, s.programs.Path(s.tb, "fs-server"), "--logtostderr",
		"--components_config", s.write(name+".components.config", config),
		"--services_config", s.write(name+".services.config", s.Services))
	return server
}

func (s *Site) serverConfig() *componentspb.Config {
	config := s.daemonConfig()
	config.HttpsConfig = &componentspb.HttpsConfig{
		ListenAddress: FreeAddress(s.tb), Certificates: s.certificates.certificate, Key: s.certificates.key,
	}
	config.NotificationListenAddress = FreeAddress(s.tb)
	return config
}

func (s *Site) daemonConfig() *componentspb.Config {
	config := proto.CloneOf(s.Components)
	config.HealthCheckConfig = &componentspb.HealthCheckConfig{ListenAddress: FreeAddress(s.tb)}
	config.StatsConfig = &componentspb.StatsConfig{Address: FreeAddress(s.tb)}
	return config
}

func daemonOf(config *componentspb.Config) Daemon {
	return Daemon{HealthAddress: config.HealthCheckConfig.ListenAddress, StatsAddress: config.StatsConfig.Address}
}

// StartAdmin runs an fs-admin and waits until it is ready. adjust may change its configuration; nil leaves it.
func (s *Site) StartAdmin(name string, adjust func(*componentspb.Config)) *Admin {
	s.tb.Helper()
	admin := s.LaunchAdmin(name, adjust)
	admin.AwaitReady()
	return admin
}

// LaunchAdmin is StartAdmin without the wait.
func (s *Site) LaunchAdmin(name string, adjust func(*componentspb.Config)) *Admin {
	s.tb.Helper()
	config := s.daemonConfig()
	config.AdminConfig = &componentspb.AdminConfig{ListenAddress: FreeAddress(s.tb)}
	config.NotificationUseHttpNotifier = true
	if adjust != nil {
		adjust(config)
	}
	admin := &Admin{Daemon: daemonOf(config), Address: config.AdminConfig.ListenAddress}
	admin.Process = Start(s.tb, s.Dir, name, s.programs.Path(s.tb, "fs-admin"), "--logtostderr",
		"--components_config", s.write(name+".components.config", config))
	return admin
}

// StartMachine runs an fs-server and an fs-admin from one components file, as on a single machine. In that file the
// listeners for health and metrics are the server's; the admin daemon's own stand in its settings.
func (s *Site) StartMachine() (*Server, *Admin) {
	s.tb.Helper()
	config := s.serverConfig()
	config.AdminConfig = &componentspb.AdminConfig{ListenAddress: FreeAddress(s.tb)}
	config.Farspeak.Admin.HealthCheckAddress = FreeAddress(s.tb)
	config.Farspeak.Admin.StatsAddress = FreeAddress(s.tb)
	components := s.write("machine.components.config", config)
	server := &Server{Daemon: daemonOf(config), ClientAddress: config.HttpsConfig.ListenAddress, site: s}
	server.Process = Start(s.tb, s.Dir, "fs-server", s.programs.Path(s.tb, "fs-server"), "--logtostderr",
		"--components_config", components, "--services_config", s.write("machine.services.config", s.Services))
	admin := &Admin{
		Daemon: Daemon{
			HealthAddress: config.Farspeak.Admin.HealthCheckAddress,
			StatsAddress:  config.Farspeak.Admin.StatsAddress,
		},
		Address: config.AdminConfig.ListenAddress,
	}
	admin.Process = Start(s.tb, s.Dir, "fs-admin", s.programs.Path(s.tb, "fs-admin"), "--logtostderr",
		"--components_config", components)
	server.AwaitReady()
	admin.AwaitReady()
	return server, admin
}

// Target is where agents reach this server directly.
func (s *Server) Target() peer.Target {
	return peer.Target{Address: s.ClientAddress, Roots: s.site.Roots()}
}

// AwaitReady waits until the daemon says that it can serve.
func (d *Daemon) AwaitReady() {
	d.tb.Helper()
	Eventually(d.tb, startTimeout, d.Name+" ready", func() error {
		if !d.Running() {
			d.tb.Fatalf("%s ended before it was ready: %v\n%s", d.Name, d.err, d.Log())
		}
		return d.Ready()
	})
}

// healthClient asks without keeping connections, so that a stopping daemon is not held up.
var healthClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}

// Ready is nil when the daemon says that it can serve.
func (d *Daemon) Ready() error {
	_, err := get("http://" + d.HealthAddress + "/readyz")
	return err
}

// Metrics is the text of the daemon's metrics.
func (d *Daemon) Metrics(tb testing.TB) string {
	tb.Helper()
	text, err := get("http://" + d.StatsAddress + "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func get(url string) (string, error) {
	response, err := healthClient.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return "", errors.Join(fmt.Errorf("%s: %s: %s", url, response.Status, body), err)
	}
	return string(body), err
}
