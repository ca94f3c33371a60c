package deptest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/farspeak/farspeak/"

// direct says which of the module's own packages a package may import itself. Patterns are paths below the module;
// "/..." takes in what is below too. Every internal package has to be in one rule, and generated code in none.
var direct = []struct {
	of  []string
	may []string
	why string
}{
	{
		of:  []string{"internal/identity", "internal/limit", "internal/keepalive", "internal/netpoll", "internal/tlsidle", "internal/crew", "internal/elements", "internal/vectors"},
		may: []string{"proto/..."},
		why: "these are the ground that everybody stands on",
	},
	{
		of:  []string{"internal/wire", "internal/proxyproto", "internal/batch", "internal/clientcert"},
		may: []string{"internal/identity", "internal/elements", "proto/..."},
		why: "a protocol or an algorithm, usable and testable without the daemons around it",
	},
	{
		of:  []string{"internal/resume"},
		may: []string{"internal/wire"},
		why: "the agent and the simulated ones shake hands alike, by what the server's answer said",
	},
	{
		of:  []string{"internal/notify"},
		may: []string{"internal/identity", "internal/store", "proto/..."},
		why: "a protocol, which carries the store's messages from one daemon to another",
	},
	{
		of:  []string{"internal/channel"},
		may: []string{"proto/..."},
		why: "the agent and the programs of others share the local protocol",
	},
	{
		of:  []string{"internal/winreg/..."},
		may: []string{"internal/winreg"},
		why: "the agent's state and its configuration are kept in the same registry",
	},
	{
		of:  []string{"internal/store"},
		may: []string{"internal/identity", "proto/..."},
		why: "row types and sentinel errors, shared by stores and callers",
	},
	{
		of:  []string{"internal/store/sqlbase", "internal/store/mysql", "internal/store/sqlite"},
		may: []string{"internal/store", "internal/store/sqlbase", "internal/identity", "db", "proto/..."},
		why: "storage knows rows and SQL, and nothing of the daemons that use it",
	},
	{
		of:  []string{"internal/store/storetest"},
		may: []string{"internal/store/...", "internal/testmysql", "internal/identity", "proto/..."},
		why: "the conformance suite of the stores",
	},
	{
		of:  []string{"internal/testmysql"},
		may: []string{},
		why: "it starts a database for tests, whatever they test",
	},
	{
		of:  []string{"internal/retention"},
		may: []string{"internal/store"},
		why: "it knows ages and batches, not what the rows mean",
	},
	{
		of:  []string{"internal/services/..."},
		may: []string{"internal/services/...", "internal/elements", "internal/identity", "internal/batch", "internal/store", "proto/..."},
		why: "server-side services do not know the server that feeds them",
	},
	{
		of: []string{"internal/server/..."},
		may: []string{
			"internal/server/...", "internal/services", "internal/wire", "internal/identity", "internal/clientcert", "internal/proxyproto",
			"internal/limit", "internal/netpoll", "internal/tlsidle", "internal/crew", "internal/notify", "internal/batch", "internal/store",
			"proto/...",
		},
		why: "fs-server's logic gets its configuration and its store from main, and shares no code with fs-admin or the agent",
	},
	{
		of:  []string{"internal/admin/..."},
		may: []string{"internal/admin/...", "internal/identity", "internal/notify", "internal/batch", "internal/store", "proto/..."},
		why: "fs-admin's logic gets its configuration and its store from main, and shares no code with fs-server or the agent",
	},
	{
		of:  []string{"internal/agent/..."},
		may: []string{"internal/agent/...", "internal/resume", "internal/wire", "internal/channel", "internal/identity", "internal/winreg", "proto/..."},
		why: "the agent and the servers share the protocol and nothing else",
	},
	{
		of:  []string{"internal/config/..."},
		may: []string{"internal/config/...", "internal/winreg", "proto/..."},
		why: "configuration becomes plain values; main maps them onto the packages, which it does not know",
	},
	{
		of:  []string{"internal/configurator"},
		may: []string{"proto/..."},
		why: "it makes files from a description",
	},
	{
		of:  []string{"internal/daemon/..."},
		may: []string{"internal/daemon/..."},
		why: "the life of a process, whatever it does",
	},
	{
		of:  []string{"bench"},
		may: []string{"internal/load/...", "internal/testmysql", "internal/resume", "internal/wire", "internal/identity", "sdk/service", "proto/..."},
		why: "the benchmark runs programs, and measures them with the load tool; it is a service of the agent itself",
	},
	{
		of:  []string{"internal/deptest", "internal/doclint", "db", "deploy"},
		may: []string{},
		why: "they are about the source tree",
	},
	{
		of:  []string{"internal/load/..."},
		may: []string{"internal/load/...", "internal/resume", "internal/wire", "internal/identity", "proto/..."},
		why: "the load tool is a peer like any other, and works against every server of the protocol",
	},
	{
		of:  []string{"sdk/..."},
		may: []string{"sdk/...", "internal/channel", "proto/..."},
		why: "authors of services and backends link the protocols and nothing of the daemons",
	},
	{
		of:  []string{"examples/..."},
		may: []string{"sdk/...", "proto/..."},
		why: "an example shows what others can build, and others cannot import internal packages",
	},
}

// importers says who alone may import a package.
var importers = []struct {
	packages []string
	by       []string
	why      string
}{
	{
		packages: []string{"cmd/..."},
		by:       []string{"cmd/..."},
		why:      "commands are the top of the tree",
	},
	{
		packages: []string{"internal/daemon/..."},
		by:       []string{"internal/daemon/...", "cmd/..."},
		why:      "a library that knows about processes and signals cannot be run in a test",
	},
	{
		packages: []string{"internal/config/...", "internal/configurator"},
		by:       []string{"internal/config/...", "cmd/..."},
		why:      "each package has a Config of its own, and main maps the file onto it",
	},
	{
		packages: []string{"internal/store/mysql", "internal/store/sqlite", "internal/store/sqlbase", "db"},
		by:       []string{"internal/store/...", "cmd/..."},
		why:      "everybody else declares the few methods that it needs",
	},
	{
		packages: []string{"database/sql/...", "github.com/go-sql-driver/mysql", "modernc.org/sqlite", "github.com/pressly/goose/v3"},
		by:       []string{"internal/store/...", "internal/testmysql", "internal/load/...", "bench"},
		why:      "SQL is spoken in one place",
	},
	{
		packages: []string{"google.golang.org/grpc/..."},
		by: []string{
			"internal/admin/...", "internal/services/...", "internal/load/...", "sdk/backend/...", "cmd/...", "proto/...", "examples/...",
			"test/...", "bench/...",
		},
		why: "gRPC and its codes belong to the edges",
	},
	{
		packages: []string{"github.com/spf13/cobra", "github.com/schollz/progressbar/v3"},
		by:       []string{"cmd/fsctl/..."},
		why:      "only fsctl has subcommands and somebody who watches",
	},
	{
		packages: []string{"testing", "internal/testmysql", "internal/store/storetest", "internal/vectors", "internal/winreg/regtest"},
		by:       []string{"internal/testmysql", "internal/store/storetest", "internal/vectors", "internal/winreg/regtest", "test/...", "bench"},
		why:      "what is for tests does not belong into a program",
	},
}

// linked says what must not be part of a package, however it came in.
var linked = []struct {
	of  []string
	not []string
	why string
}{
	{
		of: []string{"internal/agent/...", "cmd/fs-client"},
		not: []string{
			"database/sql/...", "modernc.org/...", "github.com/go-sql-driver/...", "google.golang.org/grpc/...",
			"github.com/prometheus/...", "internal/server/...", "internal/admin/...", "internal/services/...", "internal/store/...",
		},
		why: "the agent runs on other people's machines: what it does not need it must not carry",
	},
	{
		of:  []string{"sdk/service"},
		not: []string{"google.golang.org/grpc/...", "github.com/golang/glog", "github.com/prometheus/...", "net/http", "internal/wire"},
		why: "it becomes part of other people's services: protobuf and the local protocol are enough",
	},
	{
		of: []string{
			"internal/wire", "internal/channel", "internal/identity", "internal/store", "internal/store/sqlbase", "internal/batch",
		},
		not: []string{"github.com/golang/glog"},
		why: "they return errors and leave it to the edges what to log",
	},
	{
		of:  []string{"internal/identity", "internal/store"},
		not: []string{"net/http", "database/sql"},
		why: "they name things and do no I/O",
	},
	{
		of:  []string{"internal/admin/..."},
		not: []string{"internal/server/...", "internal/services/...", "internal/agent/...", "internal/wire"},
		why: "the tiers are kept apart by what they can do, too",
	},
	{
		of:  []string{"internal/server/..."},
		not: []string{"internal/admin/...", "internal/agent/..."},
		why: "the tiers are kept apart by what they can do, too",
	},
}

// node is a package in the graph; test files do not count.
type node struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// platforms are the systems that the agent runs on. They may import differently.
var platforms = []string{"linux", "darwin", "windows"}

// graph reads the module's packages as built for a system.
func graph(t *testing.T, system string) []node {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", "../../...")
	command.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var nodes []node
	decoder := json.NewDecoder(out)
	for {
		var n node
		if err := decoder.Decode(&n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(nodes) < 20 {
		t.Fatalf("found only %d packages", len(nodes))
	}
	return nodes
}

// matches says whether one of the patterns takes in an import path.
func matches(path string, patterns []string) bool {
	path = strings.TrimPrefix(path, module)
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		root, deep := strings.CutSuffix(pattern, "/...")
		return path == root || deep && strings.HasPrefix(path, root+"/")
	})
}

func isOwn(path string) bool { return strings.HasPrefix(path, module) }

func TestDirectImports(t *testing.T) {
	for _, n := range graph(t, "linux") {
		known := matches(n.ImportPath, []string{"cmd/...", "proto/...", "test/..."})
		for _, rule := range direct {
			if !matches(n.ImportPath, rule.of) {
				continue
			}
			known = true
			for _, path := range n.Imports {
				if isOwn(path) && !matches(path, rule.may) {
					t.Errorf("%s imports %s: %s", n.ImportPath, path, rule.why)
				}
			}
		}
		if !known {
			t.Errorf("%s is in no rule: say in this test what it may import", n.ImportPath)
		}
	}
}

func TestImporters(t *testing.T) {
	for _, n := range graph(t, "linux") {
		for _, rule := range importers {
			if matches(n.ImportPath, rule.by) {
				continue
			}
			for _, path := range n.Imports {
				if matches(path, rule.packages) {
					t.Errorf("%s imports %s, which only %q may: %s", n.ImportPath, path, rule.by, rule.why)
				}
			}
		}
	}
}

func TestLinked(t *testing.T) {
	for _, system := range platforms {
		for _, n := range graph(t, system) {
			for _, rule := range linked {
				if !matches(n.ImportPath, rule.of) {
					continue
				}
				for _, path := range n.Deps {
					if matches(path, rule.not) {
						t.Errorf("%s: %s links %s: %s", system, n.ImportPath, path, rule.why)
					}
				}
			}
		}
	}
}

// TestRulesAreAlive: a rule about a package that is gone protects nothing.
func TestRulesAreAlive(t *testing.T) {
	nodes := graph(t, "linux")
	alive := func(pattern string) bool {
		return slices.ContainsFunc(nodes, func(n node) bool { return matches(n.ImportPath, []string{pattern}) })
	}
	for _, rule := range direct {
		for _, pattern := range rule.of {
			if !alive(pattern) {
				t.Errorf("no package matches %q", pattern)
			}
		}
	}
}
