package cli_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func writeTemp(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAddressFromEnvironment(t *testing.T) {
	t.Setenv("FSCTL_ADMIN", newFake(t).serve(t))
	run(t, "", "client", "list").want(t, 0, linuxID)
	run(t, "", "client", "list", "--admin", "unix:/nonexistent").wantError(t, 1, "cannot reach fs-admin at unix:/nonexistent")
}

func TestAddressFromComponents(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	newFake(t).serveOn(t, listener)
	port := listener.Addr().(*net.TCPAddr).Port
	path := writeTemp(t, "components.config", fmt.Sprintf(`admin_config { listen_address: ":%d" }`, port))
	run(t, "", "client", "list", "--components_config", path).want(t, 0, linuxID)

	path = writeTemp(t, "components.config", `https_config { listen_address: ":443" }`)
	run(t, "", "client", "list", "--components_config", path).wantError(t, 1, path, "admin_config")
}
