package harness

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Site is one installation: a folder with its configuration and logs, and the store that all its daemons share.
//
// Components and Services are the templates from which each daemon's files are made at its start; a test may change them
// at any time before.
type Site struct {
	Dir        string
	Components *componentspb.Config
	Services   *serverpb.ServerConfig

	tb           testing.TB
	programs     *Programs
	certificates certificates
}

// NewSite makes an installation on an SQLite file of its own, without services. Its intervals are short, so that a
// test which waits for one of them need not wait long.
func NewSite(tb testing.TB, programs *Programs) *Site {
	tb.Helper()
	dir := tb.TempDir()
	return &Site{
		Dir: dir,
		Components: &componentspb.Config{
			SqliteDatabasePath: filepath.Join(dir, "farspeak.db"),
			Farspeak: &settingspb.Settings{
				Store:    &settingspb.Store{},
				Admin:    &settingspb.Admin{},
				Notifier: &settingspb.Notifier{},
				Server: &settingspb.Server{
					DrainTimeout:                     durationpb.New(5 * time.Second),
					RegistrationsPerSecond:           10000,
					RegistrationsPerSecondPerAddress: 10000,
				},
			},
		},
		Services:     &serverpb.ServerConfig{},
		tb:           tb,
		programs:     programs,
		certificates: newCertificates(tb),
	}
}

// UseMySQL puts the store into the database that dsn names, and migrates it.
func (s *Site) UseMySQL(dsn string) {
	s.tb.Helper()
	s.Components.SqliteDatabasePath = ""
	s.Components.MysqlDataSourceName = dsn
	s.Run("fsctl", "migrate", "--components_config", s.write("migrate.components.config", s.Components))
}

// AddBackend routes a service to a backend.
func (s *Site) AddBackend(service string, backend *Backend) {
	s.tb.Helper()
	config, err := anypb.New(&grpcservicepb.Config{Target: backend.Address, Insecure: true})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Services.Services = append(s.Services.Services, &serverpb.ServiceConfig{Name: service, Factory: "GRPC", Config: config})
}

// Roots are the certificates that clients of this installation trust.
func (s *Site) Roots() *x509.CertPool { return s.certificates.roots }

// Run runs one of the programs to its end and returns its output. A failure of it fails the test.
func (s *Site) Run(program string, args ...string) string {
	s.tb.Helper()
	output, err := s.TryRun(program, args...)
	if err != nil {
		s.tb.Fatalf("%s %q: %v\n%s", program, args, err, output)
	}
	return output
}

// TryRun runs one of the programs to its end.
func (s *Site) TryRun(program string, args ...string) (output string, err error) {
	s.tb.Helper()
	b, err := exec.CommandContext(s.tb.Context(), s.programs.Path(s.tb, program), args...).CombinedOutput()
	return string(b), err
}

// write puts a message into the site's folder as a text file.
func (s *Site) write(name string, m proto.Message) string {
	s.tb.Helper()
	text, err := prototext.MarshalOptions{Multiline: true}.Marshal(m)
	if err != nil {
		s.tb.Fatal(err)
	}
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}
