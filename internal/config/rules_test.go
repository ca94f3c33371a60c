package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/config"
)

const (
	adminOnly = "admin_config { listen_address: 'localhost:1' }\n"
	// clear is a client listener that needs no certificate and raises no warning.
	clear = "https_config { listen_address: ':443' frontend_config { cleartext_header_config { client_certificate_header: 'c' } } }\n" +
		"farspeak { server { frontend_trusted_sources: '10.0.0.1' } }\n"
)

// Each case lists every problem of its text, in full: place, field, what is wrong, remedy.
func TestBrokenRules(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	certificate, key := newYearPair(t)
	_, otherKey := newYearPair(t)
	expired, expiredKey := newPair(t, now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0))
	ending, endingKey := newPair(t, now.AddDate(-2, 0, 0), now.AddDate(0, 0, 3))
	early, earlyKey := newPair(t, now.AddDate(1, 0, 0), now.AddDate(2, 0, 0))
	certFile, keyFile := write(t, dir, "cert.pem", certificate), write(t, dir, "key.pem", key)
	empty, short := write(t, dir, "empty", " \n"), write(t, dir, "short", "abc\n")
	big := write(t, dir, "big", strings.Repeat("x", 1<<17))
	none := dir + "/none"
	pair := func(certificate, key string) string {
		return fmt.Sprintf("https_config {\nlisten_address: ':443'\ncertificates: %s\nkey: %s }", inline(certificate), inline(key))
	}
	server := func(settings string) string { return adminOnly + "farspeak { server {\n" + settings + "\n} }" }
	admin := func(settings string) string { return adminOnly + "farspeak { admin {\n" + settings + "\n} }" }
	store := func(settings string) string { return adminOnly + "farspeak { store {\n" + settings + "\n} }" }
	notifier := func(settings string) string { return adminOnly + "farspeak { notifier {\n" + settings + "\n} }" }

	tests := []struct {
		name, text string
		need       config.Part
		want       []string
	}{
		// The parts.
		{"nothing", "", 0, nil},
		{"no https_config", adminOnly, config.ServerPart, []string{
			`1:1: https_config: absent; this daemon serves clients; add https_config { listen_address: ":443" ... }`}},
		{"no admin_config", clear, config.AdminPart, []string{
			`1:1: admin_config: absent; this daemon serves backends; add admin_config { listen_address: "localhost:6061" }`}},
		{"one machine", clear + adminOnly, 0, nil},
		{"no way for hints", clear + adminOnly + "mysql_data_source_name: '/d'", 0, []string{
			`1:1: warning: notification_listen_address: absent: messages given to daemons on other machines wait for this server's sweep; write for example ":6062", and notification_public_address`}},
		{"no hints wanted", strings.Replace(clear, "farspeak {", "farspeak { notifier { disabled: true }", 1) + "mysql_data_source_name: '/d'", 0, nil},

		// Addresses.
		{"no listen address", "\nhttps_config {}", 0, []string{
			`2:1: https_config.listen_address: absent; write host:port, for example ":443"`,
			`2:1: https_config.certificates: absent; write the PEM text here, or the path of a PEM file in farspeak.server.certificates_file`,
			`2:1: https_config.key: absent; write the PEM text here, or the path of a PEM file in farspeak.server.key_file`}},
		{"listen address without port", "admin_config {\n listen_address: 'localhost' }", 0, []string{
			`2:2: admin_config.listen_address: "localhost" is not host:port: missing port in address; write for example "localhost:9000" or ":443"`}},
		{"socket path not absolute", "admin_config { listen_address: 'unix:x' }", 0, []string{
			`1:16: admin_config.listen_address: the path of the Unix socket is not absolute; write for example "unix:/run/farspeak/admin.sock"`}},
		{"socket path too long", "admin_config { listen_address: 'unix:/" + strings.Repeat("x", 107) + "' }", 0, []string{
			`1:16: admin_config.listen_address: the path of the Unix socket is longer than 107 bytes; choose a shorter one`}},
		{"bad debug addresses", adminOnly + "stats_config { address: 'a' }\nhealth_check_config { listen_address: ':x' }\nnotification_listen_address: 'b'", 0, []string{
			`2:16: stats_config.address: "a" is not host:port: missing port in address; write for example "localhost:9000" or ":443"`,
			`3:23: health_check_config.listen_address: ":x" is not host:port: unknown port; write for example "localhost:9000" or ":443"`,
			`4:1: notification_listen_address: "b" is not host:port: missing port in address; write for example "localhost:9000" or ":443"`}},
		{"one port for two", adminOnly + "stats_config { address: 'localhost:1' }\nhealth_check_config { listen_address: 'localhost:0' } notification_listen_address: 'localhost:0'", 0, []string{
			`2:16: stats_config.address: "localhost:1" is also the address of admin_config.listen_address; choose another port`}},
		{"empty debug listeners", adminOnly + "stats_config {} health_check_config {}", 0, nil},

		// Notifications.
		{"wildcard without public address", "notification_listen_address: ':8080' farspeak { notifier { secret_file: '" + keyFile + "' } }", 0, []string{
			`1:1: warning: notification_public_address: absent, and the listen address alone does not tell other machines where to connect; write host:port of this machine`}},
		{"public address nobody can use", "notification_listen_address: 'localhost:1'\nnotification_public_address: '0.0.0.0:1'", 0, []string{
			`2:1: warning: notification_public_address: nobody can connect to "0.0.0.0:1", the listen address is used; write the name or address and the port that other daemons can reach`}},
		{"public address with port 0", "notification_listen_address: 'localhost:1'\nnotification_public_address: 'server1:0'", 0, []string{
			`2:1: warning: notification_public_address: nobody can connect to "server1:0", the listen address is used; write the name or address and the port that other daemons can reach`}},
		{"public address without port", "notification_listen_address: 'localhost:1'\nnotification_public_address: 'host'", 0, []string{
			`2:1: notification_public_address: "host" is not host:port: missing port in address; write for example "server1.example.com:8080"`}},
		{"public address of nothing", "notification_public_address: 'a:1'", 0, []string{
			`1:1: warning: notification_public_address: without effect, since nothing listens; add notification_listen_address`}},
		{"open to everybody", "notification_listen_address: '192.0.2.1:1'", 0, []string{
			`1:1: warning: notification_listen_address: whoever reaches this port can make the server search its store; set farspeak.notifier.secret_file on all daemons and let only them reach the port`}},
		{"no such secret", notifier("secret_file: '" + none + "'"), 0, []string{
			"3:1: farspeak.notifier.secret_file: cannot read " + none + ": no such file or directory; check the path"}},
		{"empty secret", notifier("secret_file: '" + empty + "'"), 0, []string{
			"3:1: farspeak.notifier.secret_file: " + empty + " is empty; write the secret into that file"}},
		{"secret too large", notifier("secret_file: '" + big + "'"), 0, []string{
			"3:1: farspeak.notifier.secret_file: " + big + " is larger than 65536 bytes; check that this is the right file"}},
		{"secret is a folder", notifier("secret_file: '" + dir + "'"), 0, []string{
			"3:1: farspeak.notifier.secret_file: cannot read " + dir + ": is a directory; check the path"}},
		{"short secret", notifier("secret_file: '" + short + "'"), 0, []string{
			"3:1: warning: farspeak.notifier.secret_file: the secret is shorter than 16 bytes; make one with: openssl rand -hex 32"}},
		{"timeout", notifier("timeout { seconds: 61 }"), 0, []string{
			"3:1: farspeak.notifier.timeout: 1m1s is out of range; write from 1ms to 1m0s, or leave it out for 2s"}},

		// The client listener.
		{"certificate without key", "https_config {\nlisten_address: ':443'\ncertificates: " + inline(certificate) + " }", 0, []string{
			`1:1: https_config.key: absent; write the PEM text here, or the path of a PEM file in farspeak.server.key_file`}},
		{"key of another certificate", pair(certificate, otherKey), 0, []string{
			`4:1: https_config.key: private key does not match public key; give the unencrypted PEM key of the first certificate of https_config.certificates`}},
		{"no PEM", pair("MIIB", "x"), 0, []string{
			`3:1: https_config.certificates: holds no PEM certificate; give the PEM chain, leaf first`}},
		{"key for a certificate", pair(key, key), 0, []string{
			`3:1: https_config.certificates: holds no PEM certificate; give the PEM chain, leaf first`}},
		{"damaged certificate", pair("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key), 0, []string{
			`3:1: https_config.certificates: holds a damaged certificate; give the PEM chain, leaf first`}},
		{"certificate for a key", pair(certificate, certificate), 0, []string{
			`4:1: https_config.key: found a certificate rather than a key in the PEM for the private key; give the unencrypted PEM key of the first certificate of https_config.certificates`}},
		{"expired", pair(expired, expiredKey), 0, []string{
			"3:1: warning: https_config.certificates: the certificate expired on " + now.AddDate(-1, 0, 0).UTC().Format(time.DateOnly) + "; renew it now: agents refuse it"}},
		{"about to expire", pair(ending, endingKey), 0, []string{
			"3:1: warning: https_config.certificates: the certificate expires on " + now.AddDate(0, 0, 3).UTC().Format(time.DateOnly) + "; renew it"}},
		{"not valid yet", pair(early, earlyKey), 0, []string{
			"3:1: warning: https_config.certificates: the certificate is not valid before " + now.AddDate(1, 0, 0).UTC().Format(time.DateTime) + "; check the clock"}},
		{"inline and file", pair(certificate, key) + fmt.Sprintf("\nfarspeak { server { certificates_file: %q\nkey_file: %q } }", certFile, keyFile), 0, []string{
			`5:21: farspeak.server.certificates_file: given besides https_config.certificates; keep one of the two`,
			`6:1: farspeak.server.key_file: given besides https_config.key; keep one of the two`}},
		{"certificate file missing", "https_config { listen_address: ':443' }\nfarspeak { server { certificates_file: '" + none + "' key_file: '" + keyFile + "' } }", 0, []string{
			"2:21: farspeak.server.certificates_file: cannot read " + none + ": no such file or directory; check the path"}},
		{"checksum header missing", "https_config { listen_address: ':1'\nfrontend_config { cleartext_header_checksum_config { client_certificate_header: 'c' } } }\nfarspeak { server { frontend_trusted_sources: '::1' } }", 0, []string{
			`2:19: https_config.frontend_config.cleartext_header_checksum_config.client_certificate_checksum_header: absent; write the header's name, the same as in the balancer and the clients`}},
		{"header name", "https_config { listen_address: ':1'\nfrontend_config { cleartext_xfcc_config { client_certificate_header: 'a b' } } }\nfarspeak { server { frontend_trusted_sources: '::1' } }", 0, []string{
			`2:43: https_config.frontend_config.cleartext_xfcc_config.client_certificate_header: not the name of an HTTP header; use letters, digits and dashes`}},
		{"header believed from anyone", "https_config { listen_address: ':1'\nfrontend_config { cleartext_xfcc_config { client_certificate_header: 'x' } } }", 0, []string{
			`2:19: warning: https_config.frontend_config.cleartext_xfcc_config: whoever reaches the listener can name any client's certificate in a header; list the balancers in farspeak.server.frontend_trusted_sources`}},
		{"TLS header mode without certificate", "https_config { listen_address: ':1'\nfrontend_config { https_header_config { client_certificate_header: 'x' } } }\nfarspeak { server { frontend_trusted_sources: '::1' } }", 0, []string{
			`1:1: https_config.certificates: absent; write the PEM text here, or the path of a PEM file in farspeak.server.certificates_file`,
			`1:1: https_config.key: absent; write the PEM text here, or the path of a PEM file in farspeak.server.key_file`}},
		{"cleartext with half a pair", "https_config { listen_address: ':1' certificates: 'x'\nfrontend_config { cleartext_xfcc_config { client_certificate_header: 'x' } } }\nfarspeak { server { frontend_trusted_sources: '::1' } }", 0, []string{
			`1:37: warning: https_config.certificates: without effect, since the listener speaks plain HTTP; remove it`}},
		{"cleartext with a key file", "https_config { listen_address: ':1'\nfrontend_config { cleartext_xfcc_config { client_certificate_header: 'x' } } }\nfarspeak { server { frontend_trusted_sources: '::1'\nkey_file: '" + none + "' } }", 0, []string{
			`4:1: warning: farspeak.server.key_file: without effect, since the listener speaks plain HTTP; remove it`}},

		// Settings of the server.
		{"ranges", server("frontend_trusted_sources: ['10.0.0.0/8',\n'10.0.0.0/33']"), 0, []string{
			`4:1: farspeak.server.frontend_trusted_sources[1]: "10.0.0.0/33" is not a CIDR range; write for example "10.0.0.0/8"`}},
		{"proxy ranges", "proxy_protocol: true\n" + server("proxy_trusted_sources: 'localhost'"), 0, []string{
			`4:1: farspeak.server.proxy_trusted_sources[0]: "localhost" is not a CIDR range; write for example "10.0.0.0/8"`,
			`1:1: warning: proxy_protocol: whoever reaches the listener can claim any source address; list the balancers in farspeak.server.proxy_trusted_sources`}},
		{"proxy settings without proxy", server("proxy_trusted_sources: '10.0.0.1'\nproxy_header_required: true\nproxy_header_timeout { seconds: 1 }"), 0, []string{
			`3:1: warning: farspeak.server.proxy_trusted_sources: without effect while PROXY headers are not expected; add proxy_protocol: true`,
			`4:1: warning: farspeak.server.proxy_header_required: without effect while PROXY headers are not expected; add proxy_protocol: true`,
			`5:1: warning: farspeak.server.proxy_header_timeout: without effect while PROXY headers are not expected; add proxy_protocol: true`}},
		{"negative duration", server("sweep_interval { seconds: -1 }"), 0, []string{
			`3:1: farspeak.server.sweep_interval: not a positive duration; write { seconds: N }, or leave it out for 20s`}},
		{"duration of mixed signs", server("sweep_interval { seconds: 1 nanos: -1 }"), 0, []string{
			`3:1: farspeak.server.sweep_interval: not a positive duration; write { seconds: N }, or leave it out for 20s`}},
		{"impossible duration", server("drain_timeout { seconds: 9223372036854775807 }"), 0, []string{
			`3:1: farspeak.server.drain_timeout: not a positive duration; write { seconds: N }, or leave it out for 20s`}},
		{"duration of nothing", server("drain_timeout {}"), 0, nil},
		{"long sessions", server("stream_lifetime { seconds: 721 }"), 0, []string{
			`3:1: warning: farspeak.server.stream_lifetime: the original's agents hang up after 12m0s themselves; choose less`}},
		{"long sessions shorter than the others", server("long_stream_lifetime { seconds: 599 }"), 0, []string{
			`3:1: warning: farspeak.server.long_stream_lifetime: shorter than the lifetime of sessions with the original's agents; choose more`}},
		{"endless sessions", server("long_stream_lifetime { seconds: 86401 }"), 0, []string{
			`3:1: farspeak.server.long_stream_lifetime: 24h0m1s is out of range; write from 1s to 24h0m0s, or leave it out for 4h0m0s`}},
		{"backlog hastier than clients", server("service_budget { seconds: 10 } backlog_budget { seconds: 9 }"), 0, []string{
			`3:32: farspeak.server.backlog_budget: 9s is less than the service budget, 10s; write at least as much, or leave it out`}},
		{"redelivery before the sweep", server("redelivery_interval { seconds: 1 }"), 0, []string{
			`3:1: warning: farspeak.server.redelivery_interval: shorter than the sweep interval, which decides then; choose more`}},
		{"label with space", adminOnly + "required_label: ' x'", 0, []string{
			`2:1: warning: required_label: begins or ends with space, and clients have to claim exactly that; check the quotes`}},
		{"numbers", server("registrations_per_second: nan\nregistrations_per_second_per_address: -1\nmax_sessions: 4000000000"), 0, []string{
			`3:1: farspeak.server.registrations_per_second: out of range; write a number from 0.001 to 1e+09, or leave it out for the default`,
			`4:1: farspeak.server.registrations_per_second_per_address: out of range; write a number from 0.001 to 1e+09, or leave it out for the default`,
			`5:1: farspeak.server.max_sessions: out of range; write a number from 1 to 10000000, or leave it out for the default`}},
		{"record memory below a record", server("record_memory_bytes: 1000"), 0, []string{
			`3:1: farspeak.server.record_memory_bytes: out of range; write a number from 50331648 to 1099511627776, or leave it out for the default`}},
		{"codes", server("permanent_codes: ['INVALID_ARGUMENTS', 'OK', 'walrus', 'NOT_FOUND']"), 0, []string{
			`3:19: farspeak.server.permanent_codes[0]: "INVALID_ARGUMENTS" is not a gRPC status code; did you mean INVALID_ARGUMENT?`,
			`3:40: farspeak.server.permanent_codes[1]: OK is not a refusal; remove it`,
			`3:46: farspeak.server.permanent_codes[2]: "walrus" is not a gRPC status code; known: CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED`}},
		{"blank metric label", server("metric_labels: ' '"), 0, []string{
			`3:1: farspeak.server.metric_labels[0]: blank; write a label or remove the line`}},

		// Settings of the admin daemon (G-17).
		{"open admin port", "admin_config { listen_address: ':6061' }", 0, []string{
			`1:16: warning: admin_config.listen_address: whoever reaches this port can run anything on every client; listen on a Unix socket or localhost, or set farspeak.admin.tls and farspeak.admin.token_file`}},
		{"token in plaintext", "admin_config { listen_address: ':6061' }\nfarspeak { admin { token_file: '" + keyFile + "' } }", 0, []string{
			`1:16: warning: admin_config.listen_address: the token and all messages travel in plaintext; set farspeak.admin.tls`}},
		{"TLS without files", admin("tls {}"), 0, []string{
			`3:1: farspeak.admin.tls.certificate_file: absent; name the PEM file`,
			`3:1: farspeak.admin.tls.key_file: absent; name the PEM file`}},
		{"authorities without certificate", admin(fmt.Sprintf("tls { certificate_file: %q key_file: %q\nclient_ca_file: %[2]q }", certFile, keyFile)), 0, []string{
			"4:1: farspeak.admin.tls.client_ca_file: " + keyFile + " holds no PEM certificate; give the certificates of the authorities to trust"}},
		{"message size", admin("max_message_bytes: 1"), 0, []string{
			`3:1: farspeak.admin.max_message_bytes: out of range; write a number from 1048576 to 1073741824, or leave it out for the default`}},

		// The store.
		{"spanner", adminOnly + "spanner_config { project_id: 'p' }", 0, []string{
			`2:1: spanner_config: Spanner is not supported; set mysql_data_source_name, or sqlite_database_path for a single machine`}},
		{"spanner and SQLite", adminOnly + "spanner_config {}\nsqlite_database_path: '/x'", 0, []string{
			`2:1: warning: spanner_config: without effect: Spanner is not supported, SQLite is used; remove it`}},
		{"spanner and MySQL", adminOnly + "spanner_config {} mysql_data_source_name: '/d'", 0, nil},
		{"SQLite and MySQL", adminOnly + "sqlite_database_path: '/x' mysql_data_source_name: '/d'", 0, []string{
			`2:1: warning: sqlite_database_path: without effect, since MySQL is configured; remove one of the two`}},
		{"SQLite in memory", adminOnly + "sqlite_database_path: ':memory:'", 0, []string{
			`2:1: sqlite_database_path: is not a path; the daemons of a machine share a file; write for example /var/lib/farspeak/farspeak.db`}},
		{"DSN without database", adminOnly + "mysql_data_source_name: 'u:hush@tcp(h:1)/?a=b/c'", 0, []string{
			`2:1: mysql_data_source_name: names no database; write user:password@tcp(host:3306)/database`}},
		{"two DSNs", store("mysql_dsn_file: '"+keyFile+"'") + "mysql_data_source_name: '/d'", 0, []string{
			`3:1: farspeak.store.mysql_dsn_file: given besides mysql_data_source_name; keep one of the two`}},
		{"no DSN file", store("mysql_dsn_file: '" + none + "'"), 0, []string{
			"3:1: farspeak.store.mysql_dsn_file: cannot read " + none + ": no such file or directory; check the path"}},
		{"retention", store("contact_retention { seconds: 59 }"), 0, []string{
			`3:1: farspeak.store.contact_retention: 59s is out of range; write from 1m0s to 876600h0m0s, or leave it out for 720h0m0s`}},
		{"connections", store("max_open_connections: 10001"), 0, []string{
			`3:1: farspeak.store.max_open_connections: out of range; write a number from 1 to 10000, or leave it out for the default`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := check(t, tt.text, tt.need)
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestFrontendModes(t *testing.T) {
	certificate, key := newYearPair(t)
	const one, two = "{ client_certificate_header: 'c' }", "{ client_certificate_header: 'c' client_certificate_checksum_header: 's' }"
	for text, want := range map[string]config.Frontend{
		"":                                       {Mode: config.MutualTLS},
		"mtls_config {}":                         {Mode: config.MutualTLS},
		"https_header_config" + one:              {Mode: config.HTTPSHeader, CertificateHeader: "c"},
		"https_header_checksum_config" + two:     {Mode: config.HTTPSHeaderChecksum, CertificateHeader: "c", ChecksumHeader: "s"},
		"cleartext_header_config" + one:          {Mode: config.CleartextHeader, CertificateHeader: "c"},
		"cleartext_header_checksum_config" + two: {Mode: config.CleartextHeaderChecksum, CertificateHeader: "c", ChecksumHeader: "s"},
		"cleartext_xfcc_config" + one:            {Mode: config.CleartextXFCC, CertificateHeader: "c"},
	} {
		pair := fmt.Sprintf("certificates: %s key: %s", inline(certificate), inline(key))
		if want.Mode.IsCleartext() {
			pair = ""
		}
		s, err := mustLoad(t, fmt.Sprintf("https_config { listen_address: ':1' %s frontend_config { %s } }", pair, text)).Server()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := s.Listener.Frontend; got.Mode != want.Mode || got.CertificateHeader != want.CertificateHeader || got.ChecksumHeader != want.ChecksumHeader {
			t.Errorf("%s: got %+v", text, got)
		}
		if hasPair := len(s.Listener.Certificate.Certificate) > 0; hasPair == want.Mode.IsCleartext() {
			t.Errorf("%s: certificate %v", text, hasPair)
		}
	}
}
