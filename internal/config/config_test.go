package config_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/config/textpb"
)

func mustLoad(t *testing.T, text string) *config.File {
	t.Helper()
	f, err := config.Load(write(t, t.TempDir(), "components.config", text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// check returns every problem of a components file, one line each, without the file's path.
func check(t *testing.T, text string, need config.Part) []string {
	t.Helper()
	path := write(t, t.TempDir(), "components.config", text)
	var problems textpb.Problems
	f, err := config.Load(path)
	if err != nil {
		problems = err.(textpb.Problems)
	} else {
		problems = f.Check(need)
	}
	var lines []string
	for _, p := range problems {
		lines = append(lines, strings.TrimPrefix(p.Error(), path+":"))
	}
	return lines
}

func TestDefaults(t *testing.T) {
	certificate, key := newYearPair(t)
	f := mustLoad(t, fmt.Sprintf("https_config { listen_address: ':443' certificates: %s key: %s }\nadmin_config { listen_address: 'localhost:6061' }",
		inline(certificate), inline(key)))
	server, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(server.Listener.Certificate.Certificate); n != 1 || server.Listener.Certificate.PrivateKey == nil {
		t.Errorf("certificate chain of %d, key %T", n, server.Listener.Certificate.PrivateKey)
	}
	if server.HandshakeConcurrency < 4 {
		t.Errorf("HandshakeConcurrency = %d", server.HandshakeConcurrency)
	}
	want := config.Server{
		Listener:           config.Listener{Address: ":443", Streaming: true},
		Proxy:              config.Proxy{HeaderTimeout: 5 * time.Second},
		Notifier:           config.Notifier{Timeout: 2 * time.Second},
		StreamLifetime:     10 * time.Minute,
		LongStreamLifetime: 4 * time.Hour,
		SweepInterval:      20 * time.Second,
		RedeliveryInterval: 15 * time.Minute,
		ServiceBudget:      5 * time.Second,
		BacklogBudget:      30 * time.Second,
		UnservedAfter:      time.Hour,
		DrainTimeout:       20 * time.Second,

		RegistrationsPerSecond: 5000, RegistrationsPerSecondPerAddress: 2000,
		RecordMemoryBytes: 256 << 20, MaxPushBytes: 4 << 20,
		BacklogMaxMessages: 1_000_000, PermanentCodes: []uint32{3},
	}
	ignore := cmp.Options{
		cmpopts.IgnoreFields(config.Listener{}, "Certificate"), cmpopts.IgnoreFields(config.Server{}, "HandshakeConcurrency"),
		cmp.AllowUnexported(config.Secret{}),
	}
	if d := cmp.Diff(want, server, ignore); d != "" {
		t.Errorf("server (-want +got):\n%s", d)
	}
	admin, err := f.Admin()
	if err != nil {
		t.Fatal(err)
	}
	wantAdmin := config.Admin{
		Network: "tcp", Address: "localhost:6061", MaxMessageBytes: 64 << 20, Reflection: true,
		MaxPendingPerClient: 10_000, BacklogMaxMessages: 1_000_000, Notifier: config.Notifier{Timeout: 2 * time.Second},
	}
	if d := cmp.Diff(wantAdmin, admin, ignore); d != "" {
		t.Errorf("admin (-want +got):\n%s", d)
	}
	store, err := f.Store()
	if err != nil {
		t.Fatal(err)
	}
	const age = 30 * 24 * time.Hour
	wantStore := config.Store{
		Dialect: config.SQLite, Path: "/var/lib/farspeak/farspeak.db", MaxOpenConnections: 32,
		Retention: config.Retention{Contacts: age, Results: age, DeadLetters: age, ResourceUsage: age, MaxDeadLetters: 200_000, MaxDeadLetterBytes: 8 << 30},
	}
	if d := cmp.Diff(wantStore, store, ignore); d != "" {
		t.Errorf("store (-want +got):\n%s", d)
	}
}

func TestEverySettingArrives(t *testing.T) {
	dir := t.TempDir()
	certificate, key := newYearPair(t)
	certFile, keyFile := write(t, dir, "cert.pem", certificate), write(t, dir, "key.pem", key)
	secret := write(t, dir, "secret", "0123456789abcdef\n")
	dsn := write(t, dir, "dsn", "user:pw@tcp(db:3306)/farspeak?tls=true\n")
	f := mustLoad(t, fmt.Sprintf(`
https_config < listen_address: "[::]:4443" disable_streaming: true enable_file_server_authorization: true
  frontend_config < https_header_checksum_config <
    client_certificate_header: "client-certificate" client_certificate_checksum_header: "x-client-cert-hash" > > >
proxy_protocol: true
required_label: "lazy-corp"
notification_listen_address: ":6062" notification_public_address: "s1.example.com:6062"
admin_config { listen_address: "unix:///run/farspeak/admin.sock" }
stats_config { address: "localhost:1" } health_check_config { listen_address: "localhost:2" }
farspeak {
  store { mysql_dsn_file: %[4]q max_open_connections: 7 contact_retention { seconds: 3600 } result_retention { seconds: 7200 }
    dead_letter_retention { seconds: 10800 } resource_usage_retention { seconds: 14400 }
    dead_letter_max_messages: 12 dead_letter_max_bytes: 13000000 }
  server {
    stream_lifetime { seconds: 60 } long_stream_lifetime { seconds: 3600 } sweep_interval { seconds: 1 } redelivery_interval { seconds: 2 }
    service_budget { nanos: 20000000 } backlog_budget { seconds: 5 } unserved_after { seconds: 90 } drain_timeout { seconds: 4 }
    max_sessions: 5 handshake_concurrency: 6 registrations_per_second: 0.5 registrations_per_second_per_address: 0.25
    record_memory_bytes: 67108864 max_push_bytes: 1048576 backlog_max_messages: 9 backlog_max_attempts: 10
    proxy_trusted_sources: ["10.0.0.0/8", "192.0.2.7"] proxy_header_required: true proxy_header_timeout { seconds: 1 }
    frontend_trusted_sources: "2001:db8::/32"
    full_handshakes: true keep_service_results: true permanent_codes: ["NOT_FOUND", "INVALID_ARGUMENT"] metric_labels: "linux"
    certificates_file: %[1]q key_file: %[2]q
  }
  admin { tls { certificate_file: %[1]q key_file: %[2]q client_ca_file: %[1]q } token_file: %[3]q max_message_bytes: 2097152
    disable_reflection: true max_pending_messages_per_client: 11 stats_address: "localhost:3" health_check_address: "localhost:4" }
  notifier { disabled: true secret_file: %[3]q timeout { seconds: 1 } }
}`, certFile, keyFile, secret, dsn))
	if problems := f.Check(config.ServerPart | config.AdminPart); len(problems) > 0 {
		t.Fatalf("problems:\n%v", problems)
	}
	server, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	if server.Listener.Certificate.Leaf == nil {
		t.Error("no certificate")
	}
	got := fmt.Sprintf("%+v", struct {
		A, B, C, D, E, F any
	}{server.Listener.Address, server.Listener.Frontend, server.Proxy, server.Notifications, server.Notifier, server.PermanentCodes})
	want := "{A:[::]:4443 B:{Mode:2 CertificateHeader:client-certificate ChecksumHeader:x-client-cert-hash TrustedSources:[2001:db8::/32]} " +
		"C:{Enabled:true HeaderRequired:true TrustedSources:[10.0.0.0/8 192.0.2.7/32] HeaderTimeout:1s} " +
		"D:{ListenAddress::6062 PublicAddress:s1.example.com:6062} E:{Disabled:true Secret:[secret] Timeout:1s} F:[5 3]}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if server.Listener.Streaming || !server.Listener.FileAuthorization || server.RequiredLabel != "lazy-corp" {
		t.Errorf("listener %+v, label %q", server.Listener, server.RequiredLabel)
	}
	if server.StreamLifetime != time.Minute || server.LongStreamLifetime != time.Hour || server.SweepInterval != time.Second || server.RedeliveryInterval != 2*time.Second ||
		server.ServiceBudget != 20*time.Millisecond || server.BacklogBudget != 5*time.Second || server.UnservedAfter != 90*time.Second ||
		server.DrainTimeout != 4*time.Second {
		t.Errorf("durations: %+v", server)
	}
	if server.MaxSessions != 5 || server.HandshakeConcurrency != 6 || server.RegistrationsPerSecond != 0.5 ||
		server.RegistrationsPerSecondPerAddress != 0.25 || server.RecordMemoryBytes != 64<<20 || server.MaxPushBytes != 1<<20 ||
		server.BacklogMaxMessages != 9 || server.BacklogMaxAttempts != 10 {
		t.Errorf("numbers: %+v", server)
	}
	if !server.FullHandshakes || !server.KeepServiceResults || !slices.Equal(server.MetricLabels, []string{"linux"}) ||
		server.StatsAddress != "localhost:1" || server.HealthAddress != "localhost:2" {
		t.Errorf("rest: %+v", server)
	}
	admin, err := f.Admin()
	if err != nil {
		t.Fatal(err)
	}
	if admin.Network != "unix" || admin.Address != "/run/farspeak/admin.sock" || admin.Token.Reveal() != "0123456789abcdef" ||
		admin.TLS == nil || admin.TLS.ClientCAs == nil || len(admin.TLS.Certificates) != 1 || admin.Reflection ||
		admin.MaxMessageBytes != 2<<20 || admin.MaxPendingPerClient != 11 || admin.BacklogMaxMessages != 9 ||
		admin.StatsAddress != "localhost:3" || admin.HealthAddress != "localhost:4" {
		t.Errorf("admin: %+v", admin)
	}
	store, err := f.Store()
	if err != nil {
		t.Fatal(err)
	}
	wantAges := config.Retention{Contacts: time.Hour, Results: 2 * time.Hour, DeadLetters: 3 * time.Hour, ResourceUsage: 4 * time.Hour,
		MaxDeadLetters: 12, MaxDeadLetterBytes: 13_000_000}
	if store.Dialect != config.MySQL || store.DSN.Reveal() != "user:pw@tcp(db:3306)/farspeak?tls=true" ||
		store.MaxOpenConnections != 7 || store.Retention != wantAges {
		t.Errorf("store: %+v", store)
	}
}

// One file serves a machine: what is wrong in one daemon's part does not stop the other.
func TestPartsAreIndependent(t *testing.T) {
	const badServer = "https_config { listen_address: 'nowhere' certificates: 'x' key: 'y' }\nadmin_config { listen_address: 'localhost:1' }"
	f := mustLoad(t, badServer)
	if _, err := f.Admin(); err != nil {
		t.Errorf("Admin: %v", err)
	}
	if _, err := f.Store(); err != nil {
		t.Errorf("Store: %v", err)
	}
	if _, err := f.Server(); err == nil {
		t.Error("Server took a bad listen address")
	}
	certificate, key := newYearPair(t)
	f = mustLoad(t, fmt.Sprintf("https_config { listen_address: ':1' certificates: %s key: %s }\nadmin_config {} farspeak { admin { tls {} } }",
		inline(certificate), inline(key)))
	if _, err := f.Server(); err != nil {
		t.Errorf("Server: %v", err)
	}
	if _, err := f.Admin(); err == nil {
		t.Error("Admin took an empty listen address")
	}
	if f.Check(0).Err() == nil {
		t.Error("Check passed over the bad admin part")
	}
}

// stats_config and health_check_config name a port each, which only one daemon of a machine can have.
func TestDebugAddressesBelongToOneDaemon(t *testing.T) {
	const debug = "admin_config { listen_address: 'localhost:1' } stats_config { address: 'localhost:2' } health_check_config { listen_address: 'localhost:3' } "
	for text, want := range map[string][2]string{
		debug: {"localhost:2", "localhost:3"},
		debug + "https_config { listen_address: ':9' }":                                                                   {"", ""},
		debug + "farspeak { admin { stats_address: 'localhost:4' } }":                                                     {"localhost:4", "localhost:3"},
		debug + "https_config {} farspeak { admin { stats_address: 'localhost:4' health_check_address: 'localhost:5' } }": {"localhost:4", "localhost:5"},
	} {
		admin, err := mustLoad(t, text).Admin()
		if err != nil || admin.StatsAddress != want[0] || admin.HealthAddress != want[1] {
			t.Errorf("%s: %q, %q, %v", text, admin.StatsAddress, admin.HealthAddress, err)
		}
	}
}

func TestKeepForever(t *testing.T) {
	store, err := mustLoad(t, "farspeak { store { keep_forever: true result_retention { seconds: 3600 } } }").Store()
	if err != nil || store.Retention != (config.Retention{}) {
		t.Errorf("got %+v, %v", store.Retention, err)
	}
}

func TestLoadReportsFaultsAndBrokenRulesTogether(t *testing.T) {
	got := check(t, "walrus: 1\nhttps_config { listen_adress: ':443' }\nadmin_config { listen_address: 'x' }\nspanner_config {}\n", 0)
	fields := []string{"walrus", "https_config.listen_adress", "https_config.certificates", "https_config.key",
		"admin_config.listen_address", "spanner_config"}
	for _, field := range fields {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, " "+field+": ") }) {
			t.Errorf("nothing is said about %s", field)
		}
	}
	if len(got) != len(fields) {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load("/nonexistent/components.config")
	want := "/nonexistent/components.config: cannot be read: no such file or directory; create it or name another path"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good", "admin_config { listen_address: 'localhost:1' }")
	services := write(t, dir, "services", "")
	bad := write(t, dir, "bad", "\nadmin_config {}")
	badServices := write(t, dir, "badservices", "services { name: 'a' factory: 'X' }")
	tests := []struct {
		name, components, services string
		need                       config.Part
		want                       string
		fails                      bool
	}{
		{"valid", good, services, config.AdminPart, "the configuration is valid, with 0 warning(s)\n", false},
		{"without services", good, "", config.AdminPart, "the configuration is valid, with 0 warning(s)\n", false},
		{"part missing", good, services, config.ServerPart, good + ":1:1: https_config: absent; this daemon serves clients; " +
			"add https_config { listen_address: \":443\" ... }\n", true},
		{"both files bad", bad, badServices, config.AdminPart, bad + ":2:1: admin_config.listen_address: absent; write host:port or " +
			"a Unix socket, for example \"localhost:6061\" or \"unix:/run/farspeak/admin.sock\"\n" +
			badServices + ":1:22: services[0].factory: unknown factory \"X\"; known: NOOP, GRPC\n", true},
		{"no file", dir + "/none", services, 0, dir + "/none: cannot be read: no such file or directory; create it or name another path\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := config.CheckFiles(&out, tt.components, tt.services, tt.need)
			if out.String() != tt.want || (err != nil) != tt.fails {
				t.Errorf("error %v, output:\n%swant:\n%s", err, out.String(), tt.want)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := struct{ S config.Secret }{config.NewSecret("swordfish")}
	text, err := s.S.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %q %x %d %s", s, s, s, s, s, s, s, text)
	if strings.Contains(out, "swordfish") || strings.Contains(out, fmt.Sprintf("%x", "swordfish")) {
		t.Error(out)
	}
	if s.S.Reveal() != "swordfish" || s.S.IsZero() || !(config.Secret{}).IsZero() {
		t.Error("the value is lost")
	}
}

func TestOpenFilesWithSecretsAreWarnedOf(t *testing.T) {
	certificate, key := newYearPair(t)
	dir := t.TempDir()
	token := write(t, dir, "token", "0123456789abcdef")
	path := write(t, dir, "components.config", fmt.Sprintf(
		"https_config { listen_address: ':1' certificates: %s key: %s }\nmysql_data_source_name: 'u:p@tcp(h)/d'\nnotification_listen_address: 'localhost:1' farspeak { admin { token_file: %q } }",
		inline(certificate), inline(key), token))
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 3, 0o660: 3, 0o622: 3} {
		for _, file := range []string{path, token} {
			if err := os.Chmod(file, mode); err != nil {
				t.Fatal(err)
			}
		}
		f, err := config.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		problems := f.Check(0)
		if problems.Err() != nil || len(problems) != want {
			t.Errorf("mode %o: %v", mode, problems)
		}
	}
}
