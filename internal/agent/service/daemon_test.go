//go:build unix

package service_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

const patience = 20 * time.Second

// quick are intervals for tests in which they are not the point.
var quick = service.Timing{Respawn: 50 * time.Millisecond, StopStep: 300 * time.Millisecond, StartupWait: patience}

// argv runs a behaviour of a test child.
func argv(t *testing.T, behaviour ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{self, childFlag}, behaviour...)
}

func startDaemon(t *testing.T, host service.Host, config *daemonpb.Config, times service.Timing) service.Service {
	t.Helper()
	svc, err := service.NewDaemonWith(service.Spec{Name: "walrus", Host: host, Config: pack(t, config)}, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, svc) })
	return svc
}

func process(t *testing.T, svc service.Service, m *fspb.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := svc.Process(ctx, m); err != nil {
		t.Fatalf("message of type %s: %v", m.MessageType, err)
	}
}

func annotation(m *fspb.Message, key string) string {
	for _, e := range m.GetAnnotations().GetEntries() {
		if e.Key == key {
			return e.Value
		}
	}
	return ""
}

func TestDaemonLoopback(t *testing.T) {
	d := newDesk()
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "loopback")}, quick)
	for i, size := range []int{200, channel.MaxMessage - 500} { // the answer is a little longer
		m := padded(t, "Ping", size)
		m.Priority = fspb.Message_HIGH
		process(t, svc, m)
		answer := d.next(t, i)
		if answer.MessageType != "PingResponse" || answer.Destination.GetServiceName() != "backend" ||
			answer.Priority != fspb.Message_HIGH || !bytes.Equal(answer.Data.Value, m.Data.Value) {
			t.Errorf("%d bytes: answer is of type %s to %v with %d bytes", size, answer.MessageType, answer.Destination,
				len(answer.Data.GetValue()))
		}
	}
	state := svc.(service.Stater).State()
	if state.PID == 0 || strconv.Itoa(state.PID) != annotation(d.next(t, 0), "pid") || state.Version != "0.5" || state.Starts != 1 {
		t.Errorf("state is %+v", state)
	}
}

// The bytes are those of the protocol's description, both ways.
func TestDaemonChannelToTheByte(t *testing.T) {
	d := newDesk()
	m := textMessage(t, "Ping", "pong")
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(magic, binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body, magic)
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "strict", hex.EncodeToString(want))}, quick)
	process(t, svc, m)
	if verdict := textOf(t, d.next(t, 0)); verdict != "same" {
		t.Error(verdict)
	}
	if state := svc.(service.Stater).State(); state.Version != "0.5" || state.PID == 42 {
		t.Errorf("state is %+v", state)
	}
	stop(t, svc) // closes the pipe, and takes what the child says then
	if last := d.next(t, 1); last.MessageType != "End" {
		t.Errorf("last message is %v", last)
	}
}

func TestDaemonMessageSizes(t *testing.T) {
	d := newDesk()
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "reader", "100")}, quick)
	process(t, svc, padded(t, "Largest", channel.MaxMessage))
	if err := svc.Process(t.Context(), padded(t, "TooLarge", channel.MaxMessage+1)); !errors.Is(err, channel.ErrTooLarge) { // G-13
		t.Errorf("a message over the limit: %v", err)
	}
	process(t, svc, textMessage(t, "Small", ""))
	for i, want := range []string{"Largest", "Small"} {
		if got := textOf(t, d.next(t, i)); got != want {
			t.Errorf("the process read %s, want %s", got, want)
		}
	}
}

func TestDaemonRunsAgain(t *testing.T) {
	for name, tt := range map[string]struct{ behaviour, cause string }{
		"crash":             {"crash", "exit status 3"},
		"garbage":           {"garbage", "wrong magic"},
		"closed channel":    {"hang-up", "it closed its channel"},
		"too large":         {"oversize", "too large"},
		"end in a message":  {"cut", "unexpected EOF"},
		"no magic in time":  {"late", "read first magic"},
		"no such program":   {"", "no such file"},
		"ordinary end":      {"reader 0", "exit status 0"},
		"escaped heir":      {"grandchild escaped", "it"},
		"heir in the group": {"grandchild group", "it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk()
			config := &daemonpb.Config{Argv: argv(t, strings.Fields(tt.behaviour)...)}
			if tt.behaviour == "" {
				config.Argv = []string{"/no/such/program"}
			}
			times := quick
			if tt.behaviour == "late" {
				times.Channel = 200 * time.Millisecond
			}
			svc := startDaemon(t, d, config, times)
			state := svc.(service.Stater)
			poll(t, "second start", func() bool {
				s := state.State()
				return strings.Contains(s.LastError, tt.cause) && s.Starts >= 2
			}, func() string { return fmt.Sprintf("%+v", state.State()) })
			if strings.HasPrefix(tt.behaviour, "grandchild") {
				stop(t, svc)
				checkHeirs(t, d, tt.behaviour == "grandchild escaped")
			}
		})
	}
}

// checkHeirs looks for the processes that children left behind: those in their group ended with them. // G-43
func checkHeirs(t *testing.T, d *desk, escaped bool) {
	t.Helper()
	d.next(t, 0)
	for _, m := range d.messages() {
		pid, err := strconv.Atoi(textOf(t, m))
		if err != nil {
			t.Fatal(err)
		}
		if escaped {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		waitGone(t, pid)
	}
}

// poll waits for something that another process does.
func poll(t *testing.T, what string, condition func() bool, describe func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("%s: not within %v: %s", what, patience, describe())
}

func TestDaemonRespawnDelay(t *testing.T) {
	t.Parallel()
	d := newDesk()
	times := quick
	times.Respawn = 300 * time.Millisecond
	began := time.Now()
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "crash")}, times)
	state := svc.(service.Stater)
	poll(t, "third start", func() bool { return state.State().Starts >= 3 }, func() string { return "" })
	if elapsed := time.Since(began); elapsed < 600*time.Millisecond {
		t.Errorf("three starts within %v", elapsed)
	}
}

func TestDaemonStop(t *testing.T) {
	for name, tt := range map[string]struct {
		behaviour []string
		most      time.Duration
	}{
		"one that ends with its pipe": {[]string{"loopback"}, 250 * time.Millisecond},
		"one that was not started":    {nil, 250 * time.Millisecond},
		"a frozen one":                {[]string{"frozen"}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk()
			config := &daemonpb.Config{Argv: argv(t, tt.behaviour...), LazyStart: tt.behaviour == nil}
			svc := startDaemon(t, d, config, service.Timing{StopStep: 300 * time.Millisecond})
			state := svc.(service.Stater)
			if tt.behaviour != nil {
				poll(t, "introduction", func() bool { return state.State().Version != "" }, func() string { return "" })
			}
			pid := state.State().PID
			began := time.Now()
			stop(t, svc)
			if elapsed := time.Since(began); elapsed > tt.most {
				t.Errorf("the stop took %v", elapsed)
			}
			if pid != 0 {
				waitGone(t, pid)
			}
			if s := state.State(); s.LastError != "" || s.PID != 0 {
				t.Errorf("state is %+v", s)
			}
		})
	}
}

// A stop reaches the whole process group, also when it ignores the interrupt. // G-43
func TestDaemonStopReachesTheGroup(t *testing.T) {
	t.Parallel()
	d := newDesk()
	pidFile := filepath.Join(t.TempDir(), "pid")
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "orphan", "frozen", pidFile)}, quick)
	pid := waitForPID(t, pidFile)
	state := svc.(service.Stater)
	// The process is not the one that was started, and is believed: it is a descendant.
	poll(t, "introduction", func() bool { return state.State().PID == pid }, func() string { return fmt.Sprint(state.State()) })
	stop(t, svc)
	waitGone(t, pid)
}

func TestDaemonLazyStart(t *testing.T) {
	for name, config := range map[string]*daemonpb.Config{
		"lazy_start":         {LazyStart: true},
		"inactivity timeout": {InactivityTimeout: durationOf(0)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			config.Argv = argv(t, "loopback")
			svc := startDaemon(t, d, config, quick)
			if n := svc.(service.Stater).State().Starts; n != 0 {
				t.Errorf("%d starts without a message", n)
			}
			process(t, svc, textMessage(t, "Ping", ""))
			d.next(t, 0)
		})
	}
}

// The clock of inactivity starts with the process, and messages count in both directions. // G-14
func TestDaemonInactivity(t *testing.T) {
	t.Parallel()
	d := newDesk()
	config := &daemonpb.Config{Argv: argv(t, "loopback"), InactivityTimeout: durationOf(2 * time.Second)}
	svc := startDaemon(t, d, config, quick)
	process(t, svc, textMessage(t, "Ping", ""))
	first := annotation(d.next(t, 0), "pid")
	<-time.After(1200 * time.Millisecond) // below the timeout
	process(t, svc, textMessage(t, "Ping", ""))
	<-time.After(1200 * time.Millisecond) // above it, counted from the start
	process(t, svc, textMessage(t, "Ping", ""))
	if again := annotation(d.next(t, 2), "pid"); again != first {
		t.Fatalf("process %s was replaced by %s while it was in use", first, again)
	}
	state := svc.(service.Stater)
	poll(t, "end", func() bool { return state.State().PID == 0 }, func() string { return "" })
	if s := state.State(); s.LastError != "" || s.Starts != 1 {
		t.Errorf("state is %+v", s)
	}
	process(t, svc, textMessage(t, "Ping", ""))
	if again := annotation(d.next(t, 3), "pid"); again == first {
		t.Error("the same process answers after its end")
	}
}

// A message on which every process dies fails in the end. // G-15, G-16
func TestDaemonPoison(t *testing.T) {
	t.Parallel()
	d := newDesk()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	large := padded(t, "Poison", 1<<20) // does not fit the pipe, which nobody reads to its end
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "nibble")}, quick)
	if err := svc.Process(ctx, large); err == nil || !strings.Contains(err.Error(), "the process ended 3 times") {
		t.Errorf("got %v", err)
	}
}

// Process gives up when the service is stopped, and the message is not lost: it counts as not processed.
func TestDaemonProcessEndsWithTheService(t *testing.T) {
	svc := startDaemon(t, newDesk(), &daemonpb.Config{Argv: argv(t, "late")}, quick)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Process(ctx, textMessage(t, "Ping", "")) }() // waited for below
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Process does not end")
	}
}

// Nothing of what a process wrote before it ended is lost, full outbox or not.
func TestDaemonLastMessages(t *testing.T) {
	const messages = 40 // which a pipe holds
	t.Run("a process that ends at once", func(t *testing.T) {
		d := newDesk()
		d.setFull(true)
		svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "full", strconv.Itoa(messages))}, service.Timing{})
		state := svc.(service.Stater)
		poll(t, "end", func() bool { pid := state.State().PID; return pid != 0 && hasEnded(pid) }, func() string { return "" })
		d.setFull(false)
		d.next(t, messages-1)
	})
	t.Run("a process that is stopped", func(t *testing.T) {
		d := newDesk()
		svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "farewell", "500")}, service.Timing{})
		state := svc.(service.Stater)
		process(t, svc, textMessage(t, "Ping", ""))
		poll(t, "introduction", func() bool { return state.State().PID != 0 }, func() string { return "" })
		stop(t, svc)
		if n := len(d.messages()); n != 500 {
			t.Errorf("%d messages came", n)
		}
	})
}

func hasEnded(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// A full outbox holds back the process, and a stop comes through nevertheless. // G-56
func TestDaemonBackPressure(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.setFull(true)
	svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "number", "100000")}, quick)
	state := svc.(service.Stater)
	poll(t, "start", func() bool { return state.State().PID != 0 }, func() string { return "" })
	began := time.Now()
	stop(t, svc)
	if elapsed := time.Since(began); elapsed > 4*time.Second {
		t.Errorf("the stop took %v", elapsed)
	}
	if n := len(d.messages()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// Ten thousand messages come through each way, in order.
func TestDaemonManyMessages(t *testing.T) {
	t.Parallel()
	const messages = 10000
	t.Run("from the process", func(t *testing.T) {
		d := newDesk()
		startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "number", strconv.Itoa(messages))}, quick)
		d.next(t, messages-1)
		for i, m := range d.messages() {
			n := &wrapperspb.Int64Value{}
			if err := m.Data.UnmarshalTo(n); err != nil {
				t.Fatal(err)
			}
			if n.Value != int64(i) || m.Priority != fspb.Message_Priority(i%3) || m.Background != (i%2 == 0) ||
				string(m.SourceMessageId) != fmt.Sprintf("number-%d", i) {
				t.Fatalf("message %d is %v", i, m)
			}
		}
	})
	t.Run("to the process and back", func(t *testing.T) {
		d := newDesk()
		svc := startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "loopback")}, quick)
		for i := range messages {
			process(t, svc, textMessage(t, strconv.Itoa(i), ""))
		}
		d.next(t, messages-1)
		for i, m := range d.messages() {
			if m.MessageType != strconv.Itoa(i)+"Response" {
				t.Fatalf("message %d is of type %s", i, m.MessageType)
			}
		}
	})
}

// Failed starts leave nothing open. // G-63
func TestDaemonFailedStartsLeaveNothingOpen(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	config := &daemonpb.Config{Argv: []string{"/no/such/program"}, StdParams: &daemonpb.Config_StdParams{ServiceName: "out"}}
	svc := startDaemon(t, newDesk(), config, service.Timing{Respawn: time.Millisecond})
	first := svc.(service.Stater)
	poll(t, "failed starts", func() bool { return first.State().Starts > 20 }, func() string { return "" })
	stop(t, svc)
	if after := count(); after > before+5 {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}
