//go:build unix

package service_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/agent/service"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// printed gathers what came as StdOutput, and checks the form of each message.
func printed(t *testing.T, d *desk, limit int) (stdout, stderr []byte, messages int) {
	t.Helper()
	for _, m := range d.messages() {
		data := &daemonpb.StdOutputData{}
		if err := m.Data.UnmarshalTo(data); err != nil {
			t.Fatal(err)
		}
		if m.MessageType != "StdOutput" || m.Destination.GetServiceName() != "out" || m.Priority != fspb.Message_MEDIUM || m.Background {
			t.Errorf("message is of type %s to %v", m.MessageType, m.Destination)
		}
		if data.MessageIndex != int64(messages) || data.Pid == 0 {
			t.Errorf("message %d has index %d and pid %d", messages, data.MessageIndex, data.Pid)
		}
		if n := len(data.Stdout) + len(data.Stderr); n > limit || n == 0 {
			t.Errorf("message %d has %d bytes", messages, n)
		}
		stdout, stderr = append(stdout, data.Stdout...), append(stderr, data.Stderr...)
		messages++
	}
	return stdout, stderr, messages
}

func TestDaemonOutput(t *testing.T) {
	t.Parallel()
	const size = 5 << 20
	for name, tt := range map[string]struct {
		flush int32
		limit int
	}{
		"limit of its own": {100_000, 100_000},
		"default":          {0, 1 << 20},
		"too much":         {1<<20 + 1, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			svc := startDaemon(t, d, &daemonpb.Config{
				Argv: argv(t, "print", "5242880"), StdParams: &daemonpb.Config_StdParams{ServiceName: "out", FlushBytes: tt.flush},
			}, service.Timing{})
			state := svc.(service.Stater)
			poll(t, "end", func() bool { return state.State().LastError != "" }, func() string { return "" })
			stdout, stderr, messages := printed(t, d, tt.limit)
			if !bytes.Equal(stdout, pattern(size, 0)) || !bytes.Equal(stderr, pattern(size, 1)) {
				t.Errorf("%d bytes of stdout, %d of stderr", len(stdout), len(stderr))
			}
			if want := (2*size + tt.limit - 1) / tt.limit; messages != want {
				t.Errorf("%d messages, want %d", messages, want)
			}
		})
	}
}

func TestDaemonOutputIsSentWhenOld(t *testing.T) {
	t.Parallel()
	d := newDesk()
	startDaemon(t, d, &daemonpb.Config{
		Argv: argv(t, "print", "10", "stay"), StdParams: &daemonpb.Config_StdParams{ServiceName: "out", FlushTimeSeconds: 1},
	}, service.Timing{})
	began := time.Now()
	d.await(t, "output", func() bool {
		size := 0
		for _, m := range d.sent {
			data := &daemonpb.StdOutputData{}
			if m.Data.UnmarshalTo(data) == nil {
				size += len(data.Stdout) + len(data.Stderr)
			}
		}
		return size == 20
	})
	if elapsed := time.Since(began); elapsed < 900*time.Millisecond || elapsed > 5*time.Second {
		t.Errorf("the output came after %v", elapsed)
	}
}

// Grandchildren that hold the streams do not hold up the end of the process, and nothing that was printed is lost.
func TestDaemonOutputOfGrandchildren(t *testing.T) {
	t.Parallel()
	d := newDesk()
	svc := startDaemon(t, d, &daemonpb.Config{
		Argv:      []string{"sh", "-c", "printf before; setsid sleep 5 & exit 0"},
		StdParams: &daemonpb.Config_StdParams{ServiceName: "out"},
	}, service.Timing{})
	state := svc.(service.Stater)
	began := time.Now()
	poll(t, "end", func() bool { return state.State().LastError != "" }, func() string { return "" })
	if elapsed := time.Since(began); elapsed > 4*time.Second {
		t.Errorf("the end took %v", elapsed)
	}
	if stdout, _, _ := printed(t, d, 1<<20); string(stdout) != "before" {
		t.Errorf("got %q", stdout)
	}
}

func TestAttachedDaemon(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := os.Stdout
	os.Stdout = w
	t.Cleanup(func() { os.Stdout = before })
	d := newDesk()
	config := &daemonpb.Config{Argv: argv(t, "print", "100", "stay"), StdParams: &daemonpb.Config_StdParams{ServiceName: "out"}}
	svc, err := service.NewAttachedDaemonWith(service.Spec{Name: "walrus", Host: d, Config: pack(t, config)}, service.Timing{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, svc)
	state := svc.(service.Stater)
	poll(t, "start", func() bool { return state.State().PID != 0 }, func() string { return "" })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if _, err := r.Read(got); err != nil || !bytes.Equal(got, pattern(100, 0)) {
		t.Errorf("got %q, %v", got, err)
	}
	if n := len(d.messages()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestDaemonConfigurations(t *testing.T) {
	for name, tt := range map[string]struct {
		config *anypb.Any
		good   bool
	}{
		"least":                         {pack(t, &daemonpb.Config{Argv: []string{"true"}, LazyStart: true}), true},
		"none":                          {nil, false},
		"another type":                  {pack(t, &stdinpb.Config{Cmd: "true"}), false},
		"no argv":                       {pack(t, &daemonpb.Config{}), false}, // G-43
		"empty program":                 {pack(t, &daemonpb.Config{Argv: []string{""}}), false},
		"sample size of one":            {pack(t, &daemonpb.Config{Argv: []string{"true"}, ResourceMonitoringSampleSize: 1}), false}, // G-43
		"negative sample size":          {pack(t, &daemonpb.Config{Argv: []string{"true"}, ResourceMonitoringSampleSize: -1}), false},
		"sample size that is not used":  {pack(t, &daemonpb.Config{Argv: []string{"true"}, LazyStart: true, ResourceMonitoringSampleSize: 1, DisableResourceMonitoring: true}), true},
		"output to no service":          {pack(t, &daemonpb.Config{Argv: []string{"true"}, LazyStart: true, StdParams: &daemonpb.Config_StdParams{}}), true},
		"negative times mean no limits": {pack(t, &daemonpb.Config{Argv: []string{"true"}, InactivityTimeout: durationOf(-time.Second), MemoryLimit: -1}), true},
	} {
		svc, err := service.Standard().New("Daemon", service.Spec{Name: "walrus", Config: tt.config, Host: newDesk()})
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			svc.Stop(t.Context())
		}
	}
}
