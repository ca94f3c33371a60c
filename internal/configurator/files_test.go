package configurator_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/farspeak/farspeak/internal/configurator"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

func TestComponentsFile(t *testing.T) {
	input, _ := newInput(t)
	want := proto.CloneOf(input.ComponentsConfig)
	generate(t, input)

	got := readText(t, input.ServerComponentConfigurationFile, &componentspb.Config{})
	want.HttpsConfig.Certificates = string(readFile(t, input.ServerCertFile))
	want.HttpsConfig.Key = string(readFile(t, input.ServerCertKeyFile))
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("components file (-want +got):\n%s", diff)
	}
	text := strings.TrimSuffix(string(readFile(t, input.ServerComponentConfigurationFile)), "\n")
	if strings.Contains(text, "\n") {
		t.Error("the components file has several lines, want one")
	}
}

func files(directory, state string) *genericpb.Config {
	return &genericpb.Config{PersistenceHandler: &genericpb.Config_FilesystemHandler{
		FilesystemHandler: &genericpb.FilesystemHandler{ConfigurationDirectory: directory, StateFile: state},
	}}
}

func TestClientFiles(t *testing.T) {
	persistence := map[string]*genericpb.Config{
		"linux.client.configuration":  files("/etc/fleetspeak-client", "/var/lib/misc/fleetspeak-client.state"),
		"darwin.client.configuration": files("/etc/fleetspeak-client", "/etc/fleetspeak-client/state"),
		"windows.client.configuration": {PersistenceHandler: &genericpb.Config_RegistryHandler{
			RegistryHandler: &genericpb.RegistryHandler{ConfigurationKey: `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`},
		}},
	}
	for name, c := range map[string]struct {
		change func(*configpb.Config)
		want   *genericpb.Config
	}{
		"usual": {
			func(*configpb.Config) {},
			&genericpb.Config{ClientLabel: []string{"example-corp"}, Streaming: true},
		},
		"no required label": {
			func(c *configpb.Config) { c.ComponentsConfig.RequiredLabel = "" },
			&genericpb.Config{ClientLabel: []string{""}, Streaming: true},
		},
		"polling": {
			func(c *configpb.Config) { c.ComponentsConfig.HttpsConfig.DisableStreaming = true },
			&genericpb.Config{ClientLabel: []string{"example-corp"}},
		},
		"name and proxy": {
			func(c *configpb.Config) { c.ServerName, c.Proxy = "fleet.example.com", "http://proxy:3128" },
			&genericpb.Config{
				ClientLabel: []string{"example-corp"}, Streaming: true,
				ServerName: "fleet.example.com", Proxy: "http://proxy:3128",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			input, dir := newInput(t)
			c.change(input)
			generate(t, input)
			c.want.TrustedCerts = string(readFile(t, input.TrustedCertFile))
			c.want.Server = input.PublicHostPort
			for file, handler := range persistence {
				want := proto.CloneOf(c.want)
				proto.Merge(want, handler)
				got := readText(t, filepath.Join(dir, file), &genericpb.Config{})
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", file, diff)
				}
			}
		})
	}
}

func TestClientsGetTheWholeBundle(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	bundle := slices.Concat(readFile(t, input.TrustedCertFile), newAuthority(t, "Next CA", newECKey(t), now.Add(1000*day)))
	writeFile(t, input.TrustedCertFile, bundle)
	generate(t, input)
	got := readText(t, input.LinuxClientConfigurationFile, &genericpb.Config{})
	if got.TrustedCerts != string(bundle) {
		t.Errorf("clients trust %q, want the whole file", got.TrustedCerts)
	}
}

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	input, dir := newInput(t)
	generate(t, input)
	want := map[string]os.FileMode{
		"ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o644, "server-key.pem": 0o600,
		"server.components.config": 0o600, "linux.client.configuration": 0o644,
		"darwin.client.configuration": 0o644, "windows.client.configuration": 0o644,
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]os.FileMode{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = info.Mode()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files and their modes (-want +got):\n%s", diff)
	}
}

func TestExistingFilesKeepModeAndLinks(t *testing.T) {
	input, dir := newInput(t)
	components, linux := input.ServerComponentConfigurationFile, input.LinuxClientConfigurationFile
	writeFile(t, components, []byte("old"))
	if err := os.Chmod(components, 0o640); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "elsewhere")
	writeFile(t, target, []byte("old"))
	if err := os.Symlink(target, linux); err != nil {
		t.Fatal(err)
	}
	generate(t, input)
	info, err := os.Lstat(components)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v (%v), want 0640 as before", info.Mode(), err)
	}
	if info, err := os.Lstat(linux); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("%s is %v (%v), want a symbolic link as before", linux, info.Mode(), err)
	}
	readText(t, target, &genericpb.Config{})
}

func TestOutputToADevice(t *testing.T) {
	input, _ := newInput(t)
	input.LinuxClientConfigurationFile = os.DevNull
	generate(t, input)
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v, %v", os.DevNull, info.Mode(), err)
	}
}

func TestWarnsOfReadableSecrets(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	if err := os.Chmod(input.ServerComponentConfigurationFile, 0o644); err != nil {
		t.Fatal(err)
	}
	report := generate(t, input)
	want := input.ServerComponentConfigurationFile + " holds a private key and every user of this machine can reach it (mode 0644)"
	if len(report.Warnings) != 1 || !strings.HasPrefix(report.Warnings[0], want) {
		t.Errorf("warnings %q, want %q", report.Warnings, want)
	}
}

func TestRerunKeepsKeys(t *testing.T) {
	input, _ := newInput(t)
	pems := []string{input.TrustedCertFile, input.TrustedCertKeyFile, input.ServerCertFile, input.ServerCertKeyFile}
	outputs := []string{
		input.ServerComponentConfigurationFile, input.LinuxClientConfigurationFile,
		input.DarwinClientConfigurationFile, input.WindowsClientConfigurationFile,
	}
	first := generate(t, input)
	// A key is on disk before its certificate.
	if want := slices.Concat([]string{pems[1], pems[0], pems[3], pems[2]}, outputs); !slices.Equal(first.Written, want) {
		t.Errorf("first run wrote %q, want %q", first.Written, want)
	}
	before := map[string][]byte{}
	for _, path := range pems {
		before[path] = readFile(t, path)
	}
	input.ComponentsConfig.RequiredLabel = "changed"
	second := generate(t, input)
	if !slices.Equal(second.Written, outputs) || !slices.Equal(second.Kept, pems) {
		t.Errorf("second run wrote %q and kept %q, want %q and %q", second.Written, second.Kept, outputs, pems)
	}
	for path, content := range before {
		if !bytes.Equal(content, readFile(t, path)) {
			t.Errorf("%s changed", path)
		}
	}
	if got := readText(t, outputs[1], &genericpb.Config{}); got.ClientLabel[0] != "changed" {
		t.Errorf("client label %q, want that of the second run", got.ClientLabel)
	}
}

// TestRenewal removes the server's certificate, the way to get a new one.
func TestRenewal(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	oldKey, ca := readFile(t, input.ServerCertKeyFile), readFile(t, input.TrustedCertFile)
	if err := os.Remove(input.ServerCertFile); err != nil {
		t.Fatal(err)
	}
	generate(t, input)
	if bytes.Equal(oldKey, readFile(t, input.ServerCertKeyFile)) {
		t.Error("the server's key is the old one, want a new one")
	}
	if !bytes.Equal(ca, readFile(t, input.TrustedCertFile)) {
		t.Error("the authority changed")
	}
}

func TestReplacedAuthorityKeyIsSaved(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	old := readFile(t, input.TrustedCertKeyFile)
	if err := os.Remove(input.TrustedCertFile); err != nil {
		t.Fatal(err)
	}
	report := generate(t, input)
	if !bytes.Equal(old, readFile(t, input.TrustedCertKeyFile+".old")) {
		t.Error("the replaced key is not in the .old file")
	}
	if bytes.Equal(old, readFile(t, input.TrustedCertKeyFile)) {
		t.Error("the key was not replaced")
	}
	if !strings.Contains(strings.Join(report.Warnings, "\n"), "the key is replaced") {
		t.Errorf("warnings %q do not speak of the replaced key", report.Warnings)
	}
}

// TestWithoutAuthorityKey is a rerun on a machine that does not have the key, and needs none.
func TestWithoutAuthorityKey(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	if err := os.Remove(input.TrustedCertKeyFile); err != nil {
		t.Fatal(err)
	}
	generate(t, input)
	input.TrustedCertKeyFile = ""
	generate(t, input)
	if err := os.Remove(input.ServerCertFile); err != nil {
		t.Fatal(err)
	}
	_, err := configurator.Generate(input, configurator.Options{Now: now})
	if err == nil || !strings.Contains(err.Error(), "cannot be made without the authority's key: field trusted_cert_key_file is not set") {
		t.Errorf("error %v, want one that names trusted_cert_key_file", err)
	}
}
