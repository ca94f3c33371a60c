// Package load puts simulated fleets to work on an installation and measures what it does: how many clients it holds and
// at what cost, how fast they connect and come back, how many messages pass in each direction, how long they take, and
// whether any were lost or came twice. It speaks the protocols of clients, backends and administrators, so it works with
// any server of them.
//
// A scenario (Hold, Up, Down, Broadcast, Storm, Mix) is a sequence of phases. For each phase the result tells how long it
// took, what was counted, what the processes used, and how many statements the database took. Everything is bounded in
// time; when the context ends, the result holds what was measured until then.
//
// Fleets run in this process or in children of it, which are run with a command that calls fleet.Serve: a process has as
// many connections as it may have open files.
package load

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// perProcess is how many clients one process simulates, below the usual limit of 20,000 open files.
	perProcess = 18_000
	// perSource is how many connections go out from one address. Linux has 14,116 ports for outgoing connections that it takes
	// first; when they are used up it looks at each of them before each connection, which costs 1.5 ms. Ports of connections
	// that have ended count for a minute.
	perSource = 5_000
	// DefaultConnectTimeout bounds the time until all clients are connected.
	DefaultConnectTimeout = 5 * time.Minute
	// DefaultSettle is the pause before a measurement, in which the work of connecting ends.
	DefaultSettle = 3 * time.Second
	// DefaultDrain bounds the wait for what is under way at the end.
	DefaultDrain = 30 * time.Second
)

// Config is what all scenarios need.
type Config struct {
	// Job describes a client and where it connects. First, Count and Run are filled in here; Sources too when they are
	// needed and the servers are on this machine.
	Job fleet.Job
	// Clients is how many there are.
	Clients int
	// Processes is how many processes they are spread over: 0 for as many as are needed. With one, and no Command, they
	// run in this one.
	Processes int
	// Command runs a process that calls fleet.Serve on its standard input and output.
	Command []string
	// ConnectTimeout, Settle and Drain are as the defaults say.
	ConnectTimeout, Settle, Drain time.Duration

	// Admins are connections to fs-admin, used in turn.
	Admins []serverpb.AdminClient
	// Processes to watch, by a name for the result such as "fs-server".
	Watch map[string]int
	// Database counts statements; nil when nobody can be asked.
	Database *measure.Database
	// Progress is told now and then how things stand, Phase which phase begins; nil when nobody looks.
	Progress func(text string)
	Phase    func(name string)
}

func (c *Config) setDefaults() error {
	switch {
	case c.Clients <= 0:
		return errors.New("there have to be clients")
	case c.Job.KeyFile == "":
		return errors.New("there has to be a file for the clients' keys")
	}
	if c.Processes == 0 {
		c.Processes = (c.Clients + perProcess - 1) / perProcess
	}
	c.Processes = min(c.Processes, c.Clients)
	if c.Processes > 1 && len(c.Command) == 0 {
		return fmt.Errorf("%d clients do not fit into one process", c.Clients)
	}
	for value, otherwise := range map[*time.Duration]time.Duration{
		&c.ConnectTimeout: DefaultConnectTimeout, &c.Settle: DefaultSettle, &c.Drain: DefaultDrain,
	} {
		if *value == 0 {
			*value = otherwise
		}
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Phase == nil {
		c.Phase = func(string) {}
	}
	if len(c.Job.Sources) == 0 && c.Clients > perSource && c.onLoopback() {
		for i := range c.Clients/perSource + 1 {
			c.Job.Sources = append(c.Job.Sources, fmt.Sprintf("127.0.0.%d", 2+i))
		}
	}
	if c.Job.Service == "" {
		c.Job.Service = fleet.DefaultService
	}
	c.Job.Run = newRun()
	return nil
}

// onLoopback says whether all servers are on this machine, where any 127.x.x.x will do as a source.
func (c *Config) onLoopback() bool {
	for _, server := range c.Job.Servers {
		host, _, err := net.SplitHostPort(server)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback() || ip.To4() == nil) {
			return false
		}
	}
	return true
}

// newRun draws the number that tells this run's messages from others.
func newRun() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// keys makes the key file long enough and returns the IDs of the clients.
func (c *Config) keys() ([]identity.ClientID, error) {
	if err := fleet.EnsureKeys(c.Job.KeyFile, c.Clients); err != nil {
		return nil, err
	}
	ring, err := fleet.LoadKeys(c.Job.KeyFile, 0, c.Clients)
	if err != nil {
		return nil, err
	}
	return ring.ClientIDs(), nil
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
