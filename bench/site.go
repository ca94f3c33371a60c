package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/testmysql"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Server-side services of the installation.
const (
	noopService = "noop"
	grpcService = "backend"
)

// adminConnections is how many connections submitters share.
const adminConnections = 4

// streamWindow and connectionWindow are those of sdk/backend's Submitter.
const (
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// site is an installation in the split set-up: MariaDB that syncs each commit, fs-servers, and one fs-admin.
type site struct {
	dir, bin     string
	certificates *certificates
	database     *testmysql.Server
	dsn          string
	backend      string // address of the backend behind grpcService

	servers     []*server
	admin       *process
	adminAddr   string
	adminStats  string
	connections []*grpc.ClientConn
}

// server is one fs-server.
type server struct {
	*process
	name, clients, stats, health string
	args                         []string
}

// databaseArgs are settings of a database of its own on a machine that it shares with its clients: room for the working
// set, a log that need not be flushed in a hurry, and a sync at each commit, which testmysql asks for.
func databaseArgs(bufferPool string) []string {
	return []string{
		"--innodb-buffer-pool-size=" + bufferPool, "--innodb-log-file-size=1G", "--innodb-flush-method=O_DIRECT",
		"--innodb-io-capacity=2000", "--max-allowed-packet=64M", "--max-connections=500", "--table-open-cache=4000",
	}
}

// newSite makes certificates, starts the database and migrates it. fs-admin and fs-servers are started by startAdmin and startServer.
func newSite(ctx context.Context, bin, bufferPool string) (s *site, err error) {
	s = &site{bin: bin}
	if s.dir, err = os.MkdirTemp("", "farspeak-bench-"); err != nil {
		return nil, err
	}
	if s.certificates, err = newCertificates(); err != nil {
		return nil, err
	}
	if s.database, err = testmysql.Start(testmysql.Config{Args: databaseArgs(bufferPool)}); err != nil {
		return nil, err
	}
	if s.backend, err = freeAddress(); err != nil {
		return s, err
	}
	return s, s.freshDatabase(ctx)
}

// freshDatabase makes an empty, migrated database that processes started from now on use.
func (s *site) freshDatabase(ctx context.Context) (err error) {
	if s.dsn, err = s.database.NewDatabase(ctx); err != nil {
		return err
	}
	path, err := s.write("migrate.components.config", s.components())
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, s.program("fsctl"), "migrate", "--components_config", path)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("fsctl migrate: %w\n%s", err, out)
	}
	return nil
}

func (s *site) program(name string) string { return filepath.Join(s.bin, name) }

// components is what all daemons have in common.
func (s *site) components() *componentspb.Config {
	return &componentspb.Config{
		MysqlDataSourceName: s.dsn,
		Farspeak: &settingspb.Settings{
			Store: &settingspb.Store{}, Admin: &settingspb.Admin{}, Notifier: &settingspb.Notifier{},
			// All clients come from one address here, and as fast as they can.
			Server: &settingspb.Server{RegistrationsPerSecond: 1e6, RegistrationsPerSecondPerAddress: 1e6},
		},
	}
}

// startServer runs an fs-server and waits until it serves.
func (s *site) startServer(ctx context.Context, name string) (*server, error) {
	v := &server{name: name}
	var hints string
	if err := freeAddresses(&v.clients, &v.stats, &v.health, &hints); err != nil {
		return nil, err
	}
	config := s.components()
	config.HttpsConfig = &componentspb.HttpsConfig{
		ListenAddress: v.clients, Certificates: s.certificates.certificate, Key: s.certificates.key,
	}
	config.NotificationListenAddress = hints
	config.StatsConfig = &componentspb.StatsConfig{Address: v.stats}
	config.HealthCheckConfig = &componentspb.HealthCheckConfig{ListenAddress: v.health}
	components, err := s.write(name+".components.config", config)
	if err != nil {
		return nil, err
	}
	services, err := s.write(name+".services.config", s.services())
	if err != nil {
		return nil, err
	}
	v.args = []string{s.program("fs-server"), "--logtostderr", "--components_config", components, "--services_config", services}
	if err := s.run(ctx, v); err != nil {
		return nil, err
	}
	s.servers = append(s.servers, v)
	return v, nil
}

// run starts the process of a server, for the first time or again.
func (s *site) run(ctx context.Context, v *server) (err error) {
	if v.process, err = start(s.dir, v.name, v.args...); err != nil {
		return err
	}
	if err := v.until(ctx, ready(v.health)); err != nil {
		return s.withLog(v.name, err)
	}
	return nil
}

func (s *site) services() *serverpb.ServerConfig {
	config, err := anypb.New(&grpcservicepb.Config{Target: s.backend, Insecure: true})
	if err != nil {
		panic(err) // a message of this program always marshals
	}
	return &serverpb.ServerConfig{Services: []*serverpb.ServiceConfig{
		{Name: noopService, Factory: "NOOP"},
		{Name: grpcService, Factory: "GRPC", Config: config},
	}}
}

// startAdmin runs fs-admin, waits until it serves, and connects to it.
func (s *site) startAdmin(ctx context.Context) error {
	var health string
	if err := freeAddresses(&s.adminAddr, &s.adminStats, &health); err != nil {
		return err
	}
	config := s.components()
	config.AdminConfig = &componentspb.AdminConfig{ListenAddress: s.adminAddr}
	config.NotificationUseHttpNotifier = true
	config.StatsConfig = &componentspb.StatsConfig{Address: s.adminStats}
	config.HealthCheckConfig = &componentspb.HealthCheckConfig{ListenAddress: health}
	components, err := s.write("fs-admin.components.config", config)
	if err != nil {
		return err
	}
	s.admin, err = start(s.dir, "fs-admin", s.program("fs-admin"), "--logtostderr", "--components_config", components)
	if err != nil {
		return err
	}
	if err := s.admin.until(ctx, ready(health)); err != nil {
		return s.withLog("fs-admin", err)
	}
	for range adminConnections {
		conn, err := grpc.NewClient(s.adminAddr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connectionWindow))
		if err != nil {
			return err
		}
		s.connections = append(s.connections, conn)
	}
	return nil
}

func (s *site) admins() []serverpb.AdminClient {
	var admins []serverpb.AdminClient
	for _, conn := range s.connections {
		admins = append(admins, serverpb.NewAdminClient(conn))
	}
	return admins
}

// stopDaemons stops fs-servers and fs-admin; the database stays.
func (s *site) stopDaemons() error {
	var errs []error
	for _, conn := range s.connections {
		errs = append(errs, conn.Close())
	}
	for _, v := range s.servers {
		errs = append(errs, v.stop())
	}
	if s.admin != nil {
		errs = append(errs, s.admin.stop())
	}
	s.connections, s.servers, s.admin = nil, nil, nil
	return errors.Join(errs...)
}

// close ends everything. Logs stay when something went wrong.
func (s *site) close(failed bool) error {
	err := s.stopDaemons()
	if s.database != nil {
		err = errors.Join(err, s.database.Stop())
	}
	if err != nil || failed {
		return errors.Join(err, fmt.Errorf("logs are in %s", s.dir))
	}
	return os.RemoveAll(s.dir)
}

func (s *site) write(name string, m proto.Message) (string, error) {
	text, err := prototext.MarshalOptions{Multiline: true}.Marshal(m)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, text, 0o600)
}

// logTail is how much of a log an error shows, in bytes.
const logTail = 2000

func (s *site) withLog(name string, err error) error {
	text, readErr := os.ReadFile(filepath.Join(s.dir, name+".log"))
	return errors.Join(err, readErr, fmt.Errorf("%s", text[max(0, len(text)-logTail):]))
}

// ready is a look at /readyz.
func ready(address string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		why, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if response.StatusCode != http.StatusOK {
			return errors.Join(fmt.Errorf("%s: %s", response.Status, why), err)
		}
		return err
	}
}

// Listening ports are below the range of the kernel's own choice, so that no client's connection takes one of a server
// that is restarted.
const (
	firstPort = 20000
	lastPort  = 30000
)

var nextPort = firstPort

// freeAddress finds a port on this machine that nobody listens on. It is called from one goroutine.
func freeAddress() (string, error) {
	for ; nextPort < lastPort; nextPort++ {
		address := fmt.Sprintf("127.0.0.1:%d", nextPort)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		nextPort++
		return address, listener.Close()
	}
	return "", errors.New("no free port")
}

func freeAddresses(addresses ...*string) (err error) {
	for _, a := range addresses {
		if *a, err = freeAddress(); err != nil {
			return err
		}
	}
	return nil
}
