package integration_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/spool"
	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	"github.com/farspeak/farspeak/test/harness"
)

const (
	agentKills  = 50
	serverKills = 10
	bothKills   = 10
	// socketKills are fewer: after each the program waits for a second, and the agent with it.
	socketKills = 8
	// numbersStride is how many numbers there are at most from one kill to the next.
	numbersStride = 60
	// numbersPatience bounds the wait for the next numbers after a restart, and for the last ones.
	numbersPatience = 2 * time.Minute
)

// A service sends numbers while the agent, its server, or both are killed again and again. Each number that the service was
// told is accepted arrives at the backend, in order, and none more often than an acknowledgement of it was in doubt at a kill
// (G-11).
func TestKillsOfTheAgent(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		killAll(t, "")
	})
	t.Run("MariaDB", func(t *testing.T) {
		t.Parallel()
		killAll(t, testmysql.NewDatabase(t))
	})
	t.Run("Socket", func(t *testing.T) {
		t.Parallel()
		killSocket(t)
	})
}

// killAll has a Daemon send the numbers. It ends with its agent, and the next one goes on with what was accepted.
func killAll(t *testing.T, dsn string) {
	c := startCounting(t, dsn, "Daemon")
	c.repeat("fs-client", agentKills, c.killAgent)
	c.repeat("fs-server", serverKills, c.killServer)
	c.repeat("both", bothKills, c.killBoth)
	c.finish()
}

// killSocket has a program send the numbers that lives longer than the agent.
func killSocket(t *testing.T) {
	c := startCounting(t, "", "Socket")
	program := c.program.PID()
	c.repeat("fs-client", socketKills, c.killAgent)
	c.repeat("fs-server", serverKills, c.killServer)
	if !c.program.Running() || c.program.PID() != program {
		t.Error("the program has ended")
	}
	c.program.Kill()
	c.finish()
}

// counting is an installation with the service "numbers", and what is known of its numbers.
type counting struct {
	*installation
	t       *testing.T
	client  *harness.Client
	program *harness.Process // of a Socket
	ledger  string
	arrived *arrivedNumbers
	window  int64 // how many numbers the service sends ahead of what is accepted

	// doubts counts, for each number, how often an acknowledgement of it was in doubt: by the server, or by the agent. Each
	// may have it arrive once more.
	doubts map[int64]int
	// repeats counts, for each number, how often the service may have sent it again.
	repeats map[int64]int
}

func startCounting(t *testing.T, dsn, kind string) *counting {
	t.Helper()
	c := &counting{
		t: t, arrived: &arrivedNumbers{copies: make(map[int64]int)}, doubts: make(map[int64]int), repeats: make(map[int64]int),
	}
	c.installation = install(t, shape{dsn: dsn, site: func(s *harness.Site) {
		s.AddProcessor(numbersService, c.arrived.take)
		inOrder(s)
	}})
	c.ledger = filepath.Join(c.Dir, "ledger")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{self, numbersFlag, kind, c.ledger}
	if kind == "Daemon" {
		c.window = daemonWindow
		c.startClient(kind, &daemonpb.Config{Argv: argv})
		return c
	}
	c.window = socketWindow
	path := socketPath(t)
	c.startClient(kind, &socketpb.Config{ApiProxyPath: path})
	c.program = harness.Start(t, c.Dir, numbersService, self, append(argv[1:], path)...)
	return c
}

// startClient runs the agent with the service "numbers".
func (c *counting) startClient(kind string, config proto.Message) {
	c.t.Helper()
	c.client = c.StartClient("fs-client", harness.ClientOptions{
		Servers:  []string{c.servers[0].ClientAddress},
		Services: []*fspb.ClientServiceConfig{{Name: numbersService, Factory: kind, Config: mustPack(c.t, config)}},
	})
}

// socketPath is where a socket may be: short enough, in a folder that the agent makes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "private", "socket")
}

// repeat kills, each time after a few more numbers were accepted or have arrived, and then wants to see all.
func (c *counting) repeat(kind string, times int, kill func()) {
	c.t.Helper()
	began, before := time.Now(), c.counts()
	for n := range times {
		progress := c.accepted
		if n%2 == 0 {
			progress = c.arrived.count
		}
		c.await("numbers before the next kill of "+kind, progress, progress()+1+rand.Int64N(numbersStride))
		kill()
	}
	accepted := c.accepted()
	c.await("arrival of what was accepted", func() int64 { return c.arrived.upTo(accepted) }, accepted)
	now := c.counts()
	c.t.Logf("%d kills of %s in %v: %d numbers accepted, %d arrived, %d duplicates for %d acknowledgements in doubt",
		times, kind, time.Since(began).Round(time.Millisecond), now.accepted-before.accepted, now.arrived-before.arrived,
		now.duplicates-before.duplicates, now.doubts-before.doubts)
	c.judge()
}

// counts are those of all numbers up to a time. What has arrived may be ahead of what the service knows to be accepted.
type counts struct {
	accepted, arrived  int64
	duplicates, doubts int
}

func (c *counting) counts() counts {
	c.t.Helper()
	return counts{c.accepted(), c.arrived.count(), c.arrived.duplicates(), sum(c.doubts)}
}

// finish ends the numbers, and stops the agent in order when all have arrived. It keeps nothing then.
func (c *counting) finish() {
	c.t.Helper()
	if err := os.WriteFile(c.ledger+enoughSuffix, nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
	harness.Eventually(c.t, numbersPatience, "arrivals catch up", func() error {
		if behind := c.accepted() - c.arrived.upTo(math.MaxInt64); behind > 0 {
			return fmt.Errorf("%d behind", behind)
		}
		return nil
	})
	c.client.Terminate()
	if left := c.spooled(); len(left) > 0 {
		c.t.Errorf("the agent stopped in order and left %d numbers in its spool", len(left))
	}
}

func (c *counting) await(what string, progress func() int64, want int64) {
	c.t.Helper()
	harness.Eventually(c.t, numbersPatience, what, func() error {
		if n := progress(); n < want {
			return fmt.Errorf("%d, want %d", n, want)
		}
		return nil
	})
}

// judge wants no more duplicates than the kills explain, all numbers in order, and kills that had a chance to do harm.
func (c *counting) judge() {
	c.t.Helper()
	if early := c.arrived.overtakers(); len(early) > 0 {
		c.t.Errorf("%d numbers arrived before lower ones, such as %d", len(early), early[0])
	}
	for n, copies := range c.arrived.all() {
		if copies > 1+c.doubts[n] {
			c.t.Errorf("number %d arrived %d times, its acknowledgement was in doubt %d times", n, copies, c.doubts[n])
		}
	}
	if len(c.doubts) == 0 {
		c.t.Error("nothing was under way at any kill")
	}
}

// killAgent ends the agent and starts it again.
func (c *counting) killAgent() {
	c.client.Kill()
	c.doubtAgent()
	c.client.Restart()
}

// killServer ends the server and starts it again.
func (c *counting) killServer() {
	c.servers[0].Kill()
	c.doubtServer()
	c.servers[0].Restart()
	c.servers[0].AwaitReady()
}

// killBoth ends the agent and its server, and starts them again.
func (c *counting) killBoth() {
	c.client.Kill()
	c.servers[0].Kill()
	c.doubtAgent()
	c.client.Restart()
	c.servers[0].Restart()
	c.servers[0].AwaitReady()
}

// doubtAgent notes what a dead agent left in doubt: what is in its spool, and what the service sends again because it did not
// hear of it. A number can be among both.
func (c *counting) doubtAgent() {
	c.t.Helper()
	last := c.accepted()
	for n := last + 1; n <= last+c.window; n++ {
		c.repeats[n]++
		c.doubts[n]++
	}
	for _, n := range c.spooled() {
		c.doubts[n]++
	}
}

// spooled reads the numbers in the spool of a dead agent.
func (c *counting) spooled() (numbers []int64) {
	c.t.Helper()
	s, found, err := spool.Open(spool.Config{Dir: c.client.StatePath + ".spool"})
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	for _, e := range found.Entries {
		raw, err := s.Read(e.ID)
		m := &fspb.Message{}
		if err = errors.Join(err, proto.Unmarshal(raw, m)); err != nil {
			c.t.Fatal(err)
		}
		if m.Source.GetServiceName() == numbersService {
			numbers = append(numbers, numberOf(m))
		}
	}
	return numbers
}

// doubtServer notes what a dead server left in doubt: the messages that the agent still keeps. They are the last ones that it
// took, some of them more than once.
func (c *counting) doubtServer() {
	c.t.Helper()
	last := c.accepted()
	status, err := agent.AskStatus(c.t.Context(), c.client.StatePath+".status")
	if err != nil {
		c.t.Fatal(err)
	}
	kept := int64(status.Outbox.Messages)
	for n := last - kept + 1; n <= last+c.window; n++ {
		c.doubts[n] += 1 + c.repeats[n]
	}
}

// accepted is up to where the service was told that its numbers are accepted.
func (c *counting) accepted() int64 {
	c.t.Helper()
	last, err := readLedger(c.ledger)
	if err != nil {
		c.t.Fatal(err)
	}
	return last
}
