package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
)

// description returns the path of a configurator input whose outputs are in dir.
func description(t *testing.T, dir, more string) string {
	t.Helper()
	text := fmt.Sprintf(`# both bracket styles
configuration_name: "Example"
components_config <
  https_config: { listen_address: "127.0.0.1:0" }
  admin_config < listen_address: "localhost:9000" >
  sqlite_database_path: "%[1]s/db"
>
trusted_cert_file: "%[1]s/ca.pem"
trusted_cert_key_file: "%[1]s/ca-key.pem"
server_cert_file: "%[1]s/server.pem"
server_cert_key_file: "%[1]s/server-key.pem"
server_component_configuration_file: "%[1]s/components.config"
linux_client_configuration_file: "%[1]s/linux.config"
public_host_port: "localhost:443"
%[2]s
`, dir, more)
	return writeTemp(t, "configurator.config", text)
}

func TestConfigGenerate(t *testing.T) {
	dir := t.TempDir()
	path := description(t, dir, "")
	r := run(t, "", "config", "generate", "--config", path)
	r.want(t, 0, "written  "+dir+"/components.config", dir+"/ca-key.pem")
	if r.errout != "" {
		t.Errorf("warnings %q, want none", r.errout)
	}
	text, err := os.ReadFile(filepath.Join(dir, "linux.config"))
	if err != nil {
		t.Fatal(err)
	}
	client := &genericpb.Config{}
	if err := prototext.Unmarshal(text, client); err != nil || client.Server[0] != "localhost:443" {
		t.Errorf("client file %v, %v", client, err)
	}

	if r := run(t, "", "config", "generate", "--config", path, "--quiet"); r.code != 0 || r.out != "" {
		t.Errorf("exit code %d with %q, want silence", r.code, r.out)
	}
	r = run(t, "", "config", "generate", "--config", path, "-o", "json")
	r.want(t, 0)
	got := map[string]int{}
	for _, row := range decode[[]map[string]any](t, r) {
		got[row["action"].(string)]++
	}
	if got["kept"] != 4 || got["written"] != 2 {
		t.Errorf("second run %v, want 4 files kept and 2 written", got)
	}
}

func TestConfigGenerateErrors(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		path string
		want []string
	}{
		"missing":       {dir + "/none", []string{dir + "/none"}},
		"unknown field": {writeTemp(t, "c", "configuration_name: \"x\"\ntrusted_cert_fil: \"y\"\n"), []string{"c:2", "trusted_cert_fil"}},
		"empty":         {writeTemp(t, "c", ""), []string{"/c: ", "configuration_name is required"}},
		"bad address":   {description(t, dir, `public_host_port: "nowhere"`), []string{`public_host_port "nowhere"`}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, "", "config", "generate", "--config", c.path).wantError(t, 1, c.want...)
		})
	}
}

func TestConfigGenerateWarnings(t *testing.T) {
	r := run(t, "", "config", "generate", "--config", description(t, t.TempDir(), `server_name: "other.example.com"`))
	r.wantError(t, 0, "fsctl: warning: ", "other.example.com")
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	run(t, "", "config", "generate", "--config", description(t, dir, "")).want(t, 0)
	services := writeTemp(t, "services.config", `services { name: "x" factory: "NOOP" }`)
	run(t, "", "config", "check", "--components_config", dir+"/components.config", "--services_config", services).want(t, 0, "valid")

	bad := writeTemp(t, "bad.config", "https_config {\n  listen_addres: \":443\"\n}\n")
	r := run(t, "", "config", "check", "--components_config", bad)
	r.want(t, 1, bad+":2", "listen_addres")

	client := writeTemp(t, "client.config", `server: "x:1"`)
	r = run(t, "", "config", "check", "--client_config", client)
	r.want(t, 1, "trusted_certs")
	if !strings.HasPrefix(r.errout, "fsctl: ") {
		t.Errorf("errors %q", r.errout)
	}
}
