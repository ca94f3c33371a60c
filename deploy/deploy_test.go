// Package deploy_test keeps the samples true: they are read as the daemons read them.
package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/config/textpb"
	"github.com/farspeak/farspeak/internal/configurator"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// machine is a folder that stands for the root of a machine on which the samples are installed.
type machine struct{ root string }

// newMachine has run "fsctl config generate" on the sample, and has the notifier's secret.
func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{t.TempDir()}
	for _, dir := range []string{"etc/farspeak", "var/lib/farspeak-client", "etc/fleetspeak-client", "var/lib/misc"} {
		if err := os.MkdirAll(m.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.write(t, "etc/farspeak/notifier.secret", strings.Repeat("0123456789abcdef", 4))
	var input configpb.Config
	path := m.install(t, "configurator.config")
	text, err := textpb.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if faults := textpb.Parse(path, text, &input).Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	report, err := configurator.Generate(&input, configurator.Options{})
	if err != nil || len(report.Warnings) > 0 {
		t.Fatalf("%v, warnings %q", err, report.Warnings)
	}
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

func (m machine) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(m.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return m.path(name)
}

// install puts a sample in its place, with paths below the machine's root.
func (m machine) install(t *testing.T, sample string) string {
	t.Helper()
	return m.write(t, "etc/farspeak/"+sample, m.rooted(read(t, "config/"+sample)))
}

func (m machine) rooted(text string) string {
	return strings.NewReplacer(`"/etc/`, `"`+m.root+`/etc/`, `"/var/`, `"`+m.root+`/var/`).Replace(text)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const valid = "the configuration is valid, with 0 warning(s)\n"

// The samples raise no warning either: what G-17 asks for is on in them.
func TestServerSamples(t *testing.T) { // G-17
	m := newMachine(t)
	services := m.install(t, "services.config")
	generated := m.path("etc/farspeak/components.config")
	var out bytes.Buffer
	if err := config.CheckFiles(&out, generated, services, config.ServerPart|config.AdminPart); err != nil || out.String() != valid {
		t.Errorf("generated: %v\n%s", err, out.String())
	}
	out.Reset()
	sample := m.install(t, "components.config")
	if err := config.CheckFiles(&out, sample, services, config.ServerPart|config.AdminPart); err != nil || out.String() != valid {
		t.Errorf("sample: %v\n%s", err, out.String())
	}
	f, err := config.Load(sample)
	if err != nil {
		t.Fatal(err)
	}
	server, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := f.Admin()
	if err != nil {
		t.Fatal(err)
	}
	if !server.Listener.FileAuthorization || server.Notifier.Secret.IsZero() || admin.Network != "unix" {
		t.Errorf("a door is open: %+v, %+v", server.Listener, admin)
	}
}

// commentedSetting is a field with its value behind a comment sign.
var commentedSetting = regexp.MustCompile(`(?m)^\s*#\s+([a-z_]+): (?:true|false|\d|"|\[)`)

// What the samples only mention has to be right as well.
func TestCommentedSettingsExist(t *testing.T) {
	for sample, least := range map[string]int{"components.config": 7, "services.config": 1, "client.config": 1} {
		mentioned := commentedSetting.FindAllStringSubmatch(read(t, "config/"+sample), -1)
		if len(mentioned) < least {
			t.Errorf("%s mentions %d settings, at least %d were expected", sample, len(mentioned), least)
		}
		for _, m := range mentioned {
			if !slices.Contains(knownNames(t), m[1]) {
				t.Errorf("%s mentions %q, which is no field", sample, m[1])
			}
		}
	}
}

func TestClientSample(t *testing.T) {
	m := newMachine(t)
	ca := strings.ReplaceAll(read(t, m.path("etc/farspeak/ca.pem")), "\n", `\n`)
	text := m.rooted(read(t, "config/client.config"))
	text = strings.NewReplacer(`"-----BEGIN CERTIFICATE-----\n"`, "", `"REPLACE WITH THE CONTENT OF ca.pem\n"`, `"`+ca+`"`,
		`"-----END CERTIFICATE-----\n"`, "").Replace(text)
	c, err := agentconfig.Client(m.write(t, "etc/farspeak/client.config", text))
	if err != nil || len(c.Warnings) > 0 {
		t.Fatalf("%v, warnings %v", err, c.Warnings)
	}
	if !c.Streaming || c.Directory != m.path("etc/farspeak") {
		t.Errorf("got %+v", c)
	}
}

func TestGeneratedLinuxClientFileIsRead(t *testing.T) {
	m := newMachine(t)
	path := m.path("etc/farspeak/linux.client.config")
	m.write(t, "etc/farspeak/linux.client.config", m.rooted(read(t, path)))
	c, err := agentconfig.Client(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Servers, []string{"fs.example.com:443"}) || c.Labels[len(c.Labels)-1] != "example" {
		t.Errorf("got %+v", c)
	}
}

// communicator.txt states the defaults, and is read strictly here, since the agent passes over misspelled names.
func TestCommunicatorSampleIsTheDefault(t *testing.T) {
	var pb clientpb.CommunicatorConfig
	if faults := textpb.Parse("communicator.txt", []byte(read(t, "config/communicator.txt")), &pb).Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	c, err := (&agentconfig.Config{Directory: "config"}).Communicator()
	if err != nil || c != agentconfig.DefaultCommunicator() {
		t.Errorf("%+v, %v", c, err)
	}
	if pb.GetFailureSuicideTimeSeconds() != 604800 {
		t.Error("the sample does not state the defaults")
	}
}

// unit reads a systemd unit: all values by "Section.Key".
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	values := map[string][]string{}
	section := ""
	for line := range strings.Lines(read(t, "systemd/"+name)) {
		line = strings.TrimSpace(line)
		switch key, value, found := strings.Cut(line, "="); {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case !found:
			t.Errorf("%s: %q is no setting", name, line)
		default:
			values[section+"."+key] = append(values[section+"."+key], value)
		}
	}
	return values
}

func TestUnits(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"fs-server.service": {"Service.User": "farspeak", "Service.StateDirectory": "farspeak", "Service.KillMode": "mixed"},
		"fs-admin.service":  {"Service.User": "farspeak", "Service.StateDirectory": "farspeak", "Service.RuntimeDirectory": "farspeak"},
		"fs-client.service": {"Service.KillMode": "process", "Service.ExecReload": "/bin/kill -HUP $MAINPID"},
	} {
		values := unit(t, name)
		want["Service.Type"], want["Service.Restart"], want["Service.ConfigurationDirectory"] = "notify", "always", "farspeak"
		for key, value := range want {
			if !slices.Equal(values[key], []string{value}) {
				t.Errorf("%s: %s is %q, want %q", name, key, values[key], value)
			}
		}
		if len(values["Service.LimitNOFILE"]) != 1 {
			t.Errorf("%s: no LimitNOFILE", name)
		}
		checkCommands(t, name, values)
	}
}

// checkCommands holds that the configuration is checked with the same flags as the daemon gets, and that they name the
// default places.
func checkCommands(t *testing.T, name string, values map[string][]string) {
	t.Helper()
	start, before := values["Service.ExecStart"], values["Service.ExecStartPre"]
	if len(start) != 1 || len(before) != 1 {
		t.Fatalf("%s: commands %q, %q", name, before, start)
	}
	program, flags, _ := strings.Cut(start[0], " ")
	if before[0] != program+" --check_config "+flags || program != "/usr/bin/"+strings.TrimSuffix(name, ".service") {
		t.Errorf("%s: %q does not check what %q starts", name, before[0], start[0])
	}
	for _, word := range strings.Fields(flags) {
		known := []string{"--components_config", "/etc/farspeak/components.config", "--services_config",
			"/etc/farspeak/services.config", "--config", "/etc/farspeak/client.config"}
		if !slices.Contains(known, word) {
			t.Errorf("%s: %q", name, word)
		}
	}
}

// systemd must not kill a server that still drains.
func TestStopTimeoutIsAboveTheDrain(t *testing.T) {
	m := newMachine(t)
	f, err := config.Load(m.install(t, "components.config"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	stop, err := time.ParseDuration(unit(t, "fs-server.service")["Service.TimeoutStopSec"][0] + "s")
	if err != nil || stop < server.DrainTimeout+30*time.Second {
		t.Errorf("TimeoutStopSec %v, drain timeout %v, %v", stop, server.DrainTimeout, err)
	}
}

func TestSocketUnit(t *testing.T) {
	values := unit(t, "fs-server.socket")
	if got := values["Socket.FileDescriptorName"]; !slices.Equal(got, []string{"clients"}) {
		t.Errorf("FileDescriptorName %q", got)
	}
	if n := len(values["Socket.ListenStream"]); n != 1 {
		t.Errorf("%d ListenStream, and fs-server takes one socket", n)
	}
}

func TestHAProxySampleIsValid(t *testing.T) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy" // not in every user's PATH
	}
	out, err := exec.CommandContext(t.Context(), path, "-c", "-f", "haproxy/haproxy.cfg").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("%v (Debian: apt-get install haproxy)\n%s", err, out)
	}
}
