package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/config/textpb"
)

// fuzzPath is a file of its own for each worker process; the folder is empty otherwise, so that paths in the text name
// nothing.
func fuzzPath(f *testing.F) string {
	dir := f.TempDir()
	f.Chdir(dir)
	return filepath.Join(dir, "config")
}

// namesDevices keeps the fuzzer from reading devices that block.
func namesDevices(text string) bool { return strings.Contains(text, "/") }

// FuzzComponents holds: whatever the text, there is a list of problems or a configuration for each daemon, and the parts
// never complain of what the whole did not.
func FuzzComponents(f *testing.F) {
	for _, seed := range []string{
		"", "admin_config { listen_address: ':1' }", "https_config < listen_address: '[::1]:443' certificates: 'x' key: 'y' >",
		"https_config { listen_address: 'a:1' frontend_config { cleartext_xfcc_config { client_certificate_header: 'x' } } }",
		"proxy_protocol: t farspeak { server { proxy_trusted_sources: ['10.0.0.0', 'fe80::1%a'] sweep_interval { seconds: 1 } } }",
		"farspeak { server { permanent_codes: 'UNKNOWN' registrations_per_second: 1e-400 record_memory_bytes: 0x7fffffffffffffff } }",
		"farspeak { admin { tls { key_file: 'a' } token_file: 'config' } notifier { secret_file: '.' } store { mysql_dsn_file: 'x' } }",
		"spanner_config {} sqlite_database_path: ':' notification_listen_address: ':9' notification_public_address: 'a:http'",
	} {
		f.Add(seed)
	}
	path := fuzzPath(f)
	f.Fuzz(func(t *testing.T, text string) {
		if namesDevices(text) {
			return
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := config.Load(path)
		if err != nil {
			mustNamePlaces(t, err.(textpb.Problems))
			return
		}
		problems := file.Check(config.ServerPart | config.AdminPart)
		mustNamePlaces(t, problems)
		_, serverErr := file.Server()
		_, adminErr := file.Admin()
		_, storeErr := file.Store()
		if problems.Err() == nil && (serverErr != nil || adminErr != nil || storeErr != nil) {
			t.Errorf("valid as a whole, but %v, %v, %v", serverErr, adminErr, storeErr)
		}
	})
}

// FuzzServices holds: whatever the text, there is a list of problems or a list of services that can be started.
func FuzzServices(f *testing.F) {
	for _, seed := range []string{
		"", "services { name: 'a' factory: 'NOOP' }", "services [{ name: 'a' factory: 'CPS' }, <>] broadcast_poll_time { seconds: 1 }",
		"services { name: 'a' factory: 'GRPC' config { type_url: 'fleetspeak.grpcservice.Config' value: '\\n\\001a\\020\\001' } }",
		"services { name: 'a' factory: 'GRPC' config { [fleetspeak.grpcservice.Config] { target: 'x' insecure: true } } }",
	} {
		f.Add(seed)
	}
	path := fuzzPath(f)
	f.Fuzz(func(t *testing.T, text string) {
		if namesDevices(text) {
			return
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := config.LoadServices(path)
		if err != nil {
			mustNamePlaces(t, err.(textpb.Problems))
			return
		}
		seen := map[string]bool{}
		for _, svc := range s.Services {
			if svc.Name == "" || seen[svc.Name] || svc.MaxParallelism < 1 || (svc.Factory == config.FactoryGRPC) != (svc.GRPC != nil) {
				t.Errorf("impossible service %+v", svc)
			}
			seen[svc.Name] = true
		}
	})
}

func mustNamePlaces(t *testing.T, problems textpb.Problems) {
	t.Helper()
	for _, p := range problems {
		if p.File == "" || p.Message == "" || p.Remedy == "" {
			t.Errorf("incomplete: %+v", p)
		}
	}
}
