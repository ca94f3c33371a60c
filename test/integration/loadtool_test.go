package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/testmysql"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

// loaded is an installation that the load tool is run on.
type loaded struct {
	site   *harness.Site
	server *harness.Server
	flags  []string
}

// loadResult is what the load tool prints, as far as these tests look at it.
type loadResult struct {
	Interrupted bool `json:"interrupted"`
	Clients     int  `json:"clients"`
	Figures     []struct {
		Name  string  `json:"name"`
		Value float64 `json:"value"`
	} `json:"figures"`
	Latencies map[string]struct {
		Count int64 `json:"count"`
	} `json:"latencies"`
	Counts map[string]int64 `json:"counts"`
}

func (r *loadResult) figure(t *testing.T, name string) float64 {
	t.Helper()
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value
		}
	}
	t.Errorf("there is no figure %q among %v", name, r.Figures)
	return 0
}

// newLoaded starts fs-server and fs-admin on MariaDB, with a NOOP service, and a GRPC one whose backend is the load tool.
func newLoaded(t *testing.T) (l *loaded, backend string) {
	t.Helper()
	l = &loaded{site: harness.NewSite(t, programs)}
	dsn := testmysql.NewDatabase(t)
	l.site.UseMySQL(dsn)
	backend = harness.FreeAddress(t)
	config, err := anypb.New(&grpcservicepb.Config{Target: backend, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	l.site.Services.Services = []*serverpb.ServiceConfig{
		{Name: "noop", Factory: "NOOP"}, {Name: "backend", Factory: "GRPC", Config: config},
	}
	// What a client did not acknowledge before it went away comes soon enough for the test.
	l.site.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(2 * time.Second)
	l.site.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
	authority := filepath.Join(l.site.Dir, "ca.pem")
	l.server = l.site.StartServer("fs-server", func(c *componentspb.Config) {
		if err := os.WriteFile(authority, []byte(c.HttpsConfig.Certificates), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	admin := l.site.StartAdmin("fs-admin", nil)
	l.flags = []string{
		"--server", l.server.ClientAddress, "--trusted_certs", authority, "--admin", admin.Address,
		"--server_pid", strconv.Itoa(l.server.PID()), "--admin_pid", strconv.Itoa(admin.PID()), "--database_dsn", dsn,
		"--keys", filepath.Join(l.site.Dir, "keys"), "--settle", "100ms", "--output", "json",
	}
	return l, backend
}

// run runs a scenario.
func (l *loaded) run(t *testing.T, scenario string, flags ...string) *loadResult {
	t.Helper()
	output, err := l.try(scenario, flags...)
	return parseLoad(t, output, err)
}

func (l *loaded) try(scenario string, flags ...string) (output string, err error) {
	return l.site.TryRun("fsctl", append(append([]string{"load", scenario}, l.flags...), flags...)...)
}

func parseLoad(t *testing.T, output string, err error) *loadResult {
	t.Helper()
	if err != nil {
		t.Fatalf("fsctl load: %v\n%s", err, output)
	}
	r := &loadResult{}
	if err := json.Unmarshal([]byte(output), r); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	return r
}

// nothingLost wants these figures to be zero.
func (r *loadResult) nothingLost(t *testing.T, figures ...string) {
	t.Helper()
	for _, name := range figures {
		if n := r.figure(t, name); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// The load tool measures a real installation, in one process and in two, and nothing is lost.
func TestLoadTool(t *testing.T) {
	l, backend := newLoaded(t)

	r := l.run(t, "hold", "--clients=40", "--processes=2", "--for=300ms", "--reconnect", "--resume", "--plot", filepath.Join(l.site.Dir, "hold.svg"))
	if r.Clients != 40 || r.Counts["connects"] != 80 || r.Counts["resumed"] != 40 {
		t.Errorf("hold: %d clients, counts %v", r.Clients, r.Counts)
	}
	for _, name := range []string{"fs-server_kib_per_session_after_idle", "statements_per_connect", "connects_per_second"} {
		if r.figure(t, name) == 0 {
			t.Errorf("hold: %s is 0", name)
		}
	}

	r = l.run(t, "up", "--clients=10", "--service=noop", "--batch=5", "--window=2", "--for=500ms")
	if r.figure(t, "messages_per_second") < 10 || r.Latencies["ack"].Count == 0 {
		t.Errorf("up: figures %v", r.Figures)
	}
	r = l.run(t, "up", "--clients=10", "--service=backend", "--backend", backend, "--rate=200", "--for=1s")
	r.nothingLost(t, "lost", "duplicates")
	if got := r.figure(t, "backend_received"); got < 100 || got != float64(r.Counts["acked"]) {
		t.Errorf("up: %v messages reached the backend, counts %v", got, r.Counts)
	}

	r = l.run(t, "down", "--clients=20", "--submitters=4", "--messages=200", "--for=10s")
	r.nothingLost(t, "lost", "duplicates", "misdelivered", "unacknowledged", "refused")
	if n := r.Counts["received"]; n < 200 || n > 203 || r.Latencies["arrival"].Count != n {
		t.Errorf("down: counts %v, latencies %v", r.Counts, r.Latencies)
	}
	r = l.run(t, "down", "--clients=20", "--rate=100", "--for=1s")
	r.nothingLost(t, "lost", "duplicates")

	r = l.run(t, "broadcast", "--clients=50", "--processes=2", "--for=20s")
	r.nothingLost(t, "missing", "duplicates")
	if r.Counts["broadcasts"] != 50 {
		t.Errorf("broadcast: counts %v", r.Counts)
	}
}

// A day in a few seconds: clients come and go, and in the end everybody has everything.
func TestLoadToolMix(t *testing.T) {
	l, backend := newLoaded(t)
	r := l.run(t, "mix", "--clients=50", "--service=backend", "--backend", backend, "--day=4s", "--reports=4", "--drain=20s")
	r.nothingLost(t, "lost", "hunts_missing", "misdelivered")
	if r.Counts["received"] == 0 || r.Counts["broadcasts"] != 4*50 || r.Counts["connects"] <= 50 {
		t.Errorf("counts are %v", r.Counts)
	}
}

// The server is killed and started again under the load tool's eyes.
func TestLoadToolStorm(t *testing.T) {
	l, _ := newLoaded(t)
	var output string
	ended := make(chan error, 1)
	go func() { // the test waits for it below
		var err error
		output, err = l.try("storm", "--clients=50", "--resume", "--rate=20", "--kill_pid", strconv.Itoa(l.server.PID()), "--for=60s")
		ended <- err
	}()
	_ = l.server.WaitEnd(time.Minute) // by kill -9
	l.server.Restart()
	l.server.AwaitReady()
	err := <-ended
	r := parseLoad(t, output, err)
	r.nothingLost(t, "lost", "misdelivered")
	if r.Counts["connects"] != 100 || r.figure(t, "seconds_to_all") <= 0 {
		t.Errorf("counts %v, figures %v", r.Counts, r.Figures)
	}
	if share := r.figure(t, "resumed_share"); share < 90 { // a server that was away takes nobody's ticket
		t.Errorf("%v %% of the sessions were resumed", share)
	}
}
