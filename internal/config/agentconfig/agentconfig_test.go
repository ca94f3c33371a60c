package agentconfig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

// newCertificate returns a PEM certificate as a string of the text format.
func newCertificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return `"` + strings.ReplaceAll(text, "\n", `\n`) + `"`
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClient(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "client.config", fmt.Sprintf(`
trusted_certs: %s
server: "a.example.com:443" server: ["[::1]:8443"]
client_label: "" client_label: " \t" client_label: " alphabet" client_label: "lazy-corp"
filesystem_handler < configuration_directory: %q state_file: %q >
streaming: true
proxy: "http://u:p@proxy:3128"
client_certificate_header: "client-certificate"
server_name: "fleet"
`, newCertificate(t), dir, dir+"/state"))
	c, err := Client(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
	if want := []string{"a.example.com:443", "[::1]:8443"}; !slices.Equal(c.Servers, want) {
		t.Errorf("Servers = %q", c.Servers)
	}
	if want := []string{runtime.GOARCH, runtime.GOOS, " alphabet", "lazy-corp"}; !slices.Equal(c.Labels, want) {
		t.Errorf("Labels = %q", c.Labels)
	}
	if c.TrustedCerts == nil || c.Directory != dir || c.StateFile != dir+"/state" || !c.Streaming ||
		c.Proxy.Host != "proxy:3128" || c.CertificateHeader != "client-certificate" || c.ServerName != "fleet" {
		t.Errorf("got %+v", c)
	}
}

func TestBrokenRules(t *testing.T) {
	dir := t.TempDir()
	certificate := newCertificate(t)
	file := write(t, dir, "file", "")
	head := "trusted_certs: " + certificate + "\nserver: 'a:1'\n"
	tail := fmt.Sprintf("\nfilesystem_handler { configuration_directory: %q state_file: %q }", dir, dir+"/state")
	const key = `; write for example "HKEY_LOCAL_MACHINE\\SOFTWARE\\FleetspeakClient"`
	const server = `; write for example "fleet.example.com:443"`
	tests := []struct {
		name, text, goos string
		want             []string
	}{
		{"nothing", "", "linux", []string{
			`1:1: trusted_certs: absent; write the PEM text of the authority that issued the server's certificate`,
			`1:1: server: absent` + server,
			`1:1: filesystem_handler: absent; add filesystem_handler { configuration_directory: "..." state_file: "..." }`}},
		{"unknown field", head + "servers: 'b:2'" + tail, "linux", []string{`3:1: servers: unknown field; did you mean server?`}},
		{"a path for certificates", "trusted_certs: '/etc/ca.pem' server: 'a:1'" + tail, "linux", []string{
			`1:1: trusted_certs: holds no PEM certificate; write the PEM text itself, not a path, with line breaks as \n`}},
		{"one damaged certificate of two", "trusted_certs: " + certificate + `"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" server: 'a:1'` + tail,
			"linux", []string{`1:1: warning: trusted_certs: 1 PEM block(s) are no certificates; remove them`}},
		{"servers", "trusted_certs: " + certificate + "\nserver: ['a:1', 'b', ':443']\nserver: 'c:0'" + tail, "linux", []string{
			`2:17: server[1]: "b" is not host:port: missing port in address` + server,
			`2:22: server[2]: nobody can connect to ":443"` + server,
			`3:1: server[3]: nobody can connect to "c:0"` + server}},
		{"proxy", head + "proxy: 'http://u:p%zz@h'" + tail, "linux", []string{
			`3:1: proxy: not a URL; write for example "http://proxy.example.com:3128"`}},
		{"proxy scheme", head + "proxy: 'ftp://h:1'" + tail, "linux", []string{
			`3:1: proxy: the URL's scheme is not http, https or socks5; write for example "http://proxy.example.com:3128"`}},
		{"header", head + "client_certificate_header: 'a:'" + tail, "linux", []string{
			`3:1: client_certificate_header: not the name of an HTTP header; use letters, digits and dashes`}},
		{"two handlers", head + "registry_handler {}" + tail, "linux", []string{
			`3:1: registry_handler: only Windows has a registry; use filesystem_handler`,
			`4:1: filesystem_handler: excluded by registry_handler, first on line 3; keep one of the fields of persistence_handler`}},
		{"registry elsewhere", head + `registry_handler { configuration_key: "HKEY_LOCAL_MACHINE\\SOFTWARE\\FleetspeakClient" }`, "darwin", []string{
			`3:1: registry_handler: only Windows has a registry; use filesystem_handler`}},
		{"registry of the user", head + `registry_handler { configuration_key: "HKEY_CURRENT_USER\\x" }`, "windows", []string{
			`3:20: registry_handler.configuration_key: "HKEY_CURRENT_USER\\x" does not begin with HKEY_LOCAL_MACHINE\` + key}},
		{"registry without key", head + `registry_handler {}`, "windows", []string{
			`3:1: registry_handler.configuration_key: absent` + key}},
		{"empty handler", head + "filesystem_handler {}", "linux", []string{
			`3:1: filesystem_handler.configuration_directory: absent; write for example "/etc/farspeak"`,
			`3:1: warning: filesystem_handler.state_file: absent: every start makes a new client; name a file that survives reboots`}},
		{"missing directories", head + "filesystem_handler { configuration_directory: '/none'\nstate_file: '/none/state' }", "windows", []string{
			`3:22: filesystem_handler.configuration_directory: the directory /none does not exist; create it`,
			`4:1: filesystem_handler.state_file: the directory /none does not exist; create it`}},
		{"file for a directory", head + fmt.Sprintf("filesystem_handler { configuration_directory: %q state_file: %q }", file, dir+"/s"), "linux", []string{
			`3:22: filesystem_handler.configuration_directory: ` + file + ` is not a directory; name a directory`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := parse("f", []byte(tt.text), tt.goos)
			var got []string
			for _, p := range problems {
				got = append(got, strings.TrimPrefix(p.Error(), "f:"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestCommunicator(t *testing.T) {
	standard := Communicator{MaxPollDelay: 5 * time.Minute, MaxBufferDelay: 5 * time.Second, MinFailureDelay: 5 * time.Minute, FailureSuicideTime: 7 * 24 * time.Hour}
	changed := standard
	changed.MaxPollDelay, changed.MaxBufferDelay, changed.Compress, changed.PreferHTTP2 = 7*time.Second, -time.Second, true, true
	tests := []struct {
		name, text string
		want       Communicator
		fails      bool
	}{
		{"empty", "# nothing", standard, false},
		{"unknown fields", "walrus { a: 1 } max_poll_delay_seconds: 7 max_buffer_delay_seconds: -1 min_failure_delay_seconds: 0\n" +
			"compression: COMPRESSION_DEFLATE prefer_http2: true", changed, false},
		{"unparsable", "max_poll_delay_seconds: 'x'", standard, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, CommunicatorFile, tt.text)
			if got, err := (&Config{Directory: dir}).Communicator(); got != tt.want || (err != nil) != tt.fails {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if got, err := (&Config{Directory: t.TempDir()}).Communicator(); got != standard || err != nil {
		t.Errorf("missing file: got %+v, %v", got, err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, CommunicatorFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := (&Config{Directory: dir}).Communicator(); got != standard || err == nil {
		t.Errorf("directory: got %+v, %v", got, err)
	}
}

func mustMarshal(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func signed(t *testing.T, name string) string {
	t.Helper()
	config := mustMarshal(t, &fspb.ClientServiceConfig{Name: name, Factory: "Stdin"})
	return mustMarshal(t, &fspb.SignedClientServiceConfig{ServiceConfig: []byte(config), Signature: []byte("sig")})
}

func TestServices(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "services/a", signed(t, "both"))
	write(t, dir, "services/b", signed(t, "only-signed"))
	write(t, dir, "services/empty", "")
	write(t, dir, "services/junk", "\xff\xff")
	write(t, dir, "services/inner", mustMarshal(t, &fspb.SignedClientServiceConfig{ServiceConfig: []byte("\xff")}))
	write(t, dir, "services/folder/x", signed(t, "hidden"))
	write(t, dir, "textservices/a.txt", "name: 'both' factory: 'Daemon' walrus: 1\n"+
		"config: < [type.googleapis.com/fleetspeak.daemonservice.Config]: < argv: '/bin/true' > >")
	write(t, dir, "textservices/a.txt~", "name: 'stdin' config { [x/fleetspeak.stdinservice.Config] { cmd: 'x' } }")
	write(t, dir, "textservices/b", "name: 'socket' config { [x/fleetspeak.socketservice.Config] { api_proxy_path: 'x' } }")
	write(t, dir, "textservices/c", "name: 'system'")
	write(t, dir, "textservices/d", "name: 'x' config { [x/no.such.Type] {} }")
	write(t, dir, "textservices/e", "name: 'x' name: 'y'")
	services, problems := (&Config{Directory: dir}).Services()
	var got []string
	for _, s := range services {
		got = append(got, fmt.Sprintf("%s %s %q %v", s.Config.GetName(), s.Config.GetFactory(), s.Signature, len(s.Signed) > 0))
	}
	want := []string{`only-signed Stdin "sig" true`, `both Daemon "" false`, `stdin  "" false`, `socket  "" false`}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
	var config daemonpb.Config
	if err := services[1].Config.GetConfig().UnmarshalTo(&config); err != nil || config.GetArgv()[0] != "/bin/true" {
		t.Errorf("config: %v, %v", &config, err)
	}
	if problems.Err() != nil {
		t.Errorf("not only warnings: %v", problems)
	}
	var about []string
	for _, p := range problems {
		about = append(about, strings.TrimPrefix(p.File, dir+"/"))
	}
	if want := []string{"services/empty", "services/folder", "services/inner", "services/junk", "textservices/a.txt",
		"textservices/c", "textservices/d", "textservices/e"}; !slices.Equal(about, want) {
		t.Errorf("problems:\n%v", problems)
	}
}

func TestMissingServiceDirectoriesAreTold(t *testing.T) {
	services, problems := (&Config{Directory: t.TempDir()}).Services()
	if len(services) != 0 || len(problems) != 2 || problems.Err() != nil {
		t.Errorf("got %v, %v", services, problems)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good", fmt.Sprintf("trusted_certs: %s server: 'a:1' filesystem_handler { configuration_directory: %q state_file: %q }",
		newCertificate(t), dir, dir+"/state"))
	bad := write(t, dir, "bad", "\nwalrus: 1")
	write(t, dir, "services/.keep", signed(t, "s"))
	write(t, dir, "textservices/t", "name: ''")
	write(t, dir, CommunicatorFile, "\nprefer_http2: 7")
	tests := []struct {
		name, path, want string
		fails            bool
	}{
		{"valid", good, dir + "/communicator.txt:2:15: warning: not valid in the protobuf text format; compare this place with the sample configuration\n" +
			dir + "/textservices/t: warning: name: \"\" cannot be a service's name; name the service as its messages do\n" +
			"the configuration is valid, with 2 warning(s)\n", false},
		{"missing", dir + "/none", dir + "/none: cannot be read: no such file or directory; create it or name another path\n", true},
		{"invalid", bad, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := CheckFiles(&out, tt.path)
			if (err != nil) != tt.fails || tt.want != "" && out.String() != tt.want || out.Len() == 0 {
				t.Errorf("error %v, output:\n%s", err, out.String())
			}
		})
	}
}

// FuzzClientConfig holds: whatever the text, there is a list of problems or a configuration that an agent can start with.
func FuzzClientConfig(f *testing.F) {
	certificate := newCertificate(f)
	for _, seed := range []string{
		"", "server: 'a:1' client_label: '' streaming: true", "trusted_certs: " + certificate,
		"trusted_certs: " + certificate + " server: 'a:1' filesystem_handler { configuration_directory: '.' state_file: 's' }",
		"registry_handler < configuration_key: 'HKEY_LOCAL_MACHINE\\\\x' > proxy: 'socks5://h:1' server_name: 'n'",
	} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, windows bool) {
		goos := map[bool]string{true: "windows", false: "linux"}[windows]
		c, problems := parse("f", []byte(text), goos)
		for _, p := range problems {
			if p.File != "f" || p.Message == "" || p.Remedy == "" {
				t.Errorf("incomplete: %+v", p)
			}
		}
		if problems.Err() == nil && (len(c.Servers) == 0 || len(c.Labels) < 2 || c.Directory == "" && c.RegistryKey == "") {
			t.Errorf("accepted: %+v", c)
		}
	})
}
