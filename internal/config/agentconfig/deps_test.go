package agentconfig

import (
	"os/exec"
	"strings"
	"testing"
)

// The agent runs on other people's machines: what reads its configuration links nothing that servers need.
func TestLinksOnlyProtobuf(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		isModule := strings.Contains(strings.Split(dep, "/")[0], ".")
		if isModule && !strings.HasPrefix(dep, "google.golang.org/protobuf/") && !strings.HasPrefix(dep, "github.com/farspeak/farspeak/") {
			t.Errorf("links %s", dep)
		}
		if dep == "database/sql" || dep == "net/http" {
			t.Errorf("links %s", dep)
		}
	}
}
