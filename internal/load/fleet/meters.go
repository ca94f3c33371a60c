package fleet

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/internal/load/measure"
)

// Count names something that a fleet counts. All but Connected only grow.
type Count int

// What is counted.
const (
	Connected    Count = iota // sessions now
	Connects                  // sessions that began
	Resumed                   // of them those with a resumed TLS session
	Failures                  // dials that did not lead to a session
	Lost                      // sessions that broke
	Farewells                 // sessions that the server asked to end
	Records                   // sent, without record 0
	BytesSent                 // in them
	Sent                      // messages to server-side services, repeats included
	Acked                     // of them those whose record was acknowledged
	Throttled                 // messages that were due and found no room in their client
	Received                  // new messages of this run to one client
	Broadcasts                // new messages of this run to all clients
	Duplicates                // messages of this run that came again
	Misdelivered              // messages of this run for another client
	Foreign                   // other messages
	AcksSent                  // acknowledgements of received messages, repeats included
	AcksTaken                 // of them those whose record was acknowledged
	Misordered                // acknowledgements of records that did not come in their order
	numCounts
)

var countNames = [numCounts]string{
	"connected", "connects", "resumed", "failures", "lost", "farewells", "records", "bytes_sent", "sent", "acked", "throttled",
	"received", "broadcasts", "duplicates", "misdelivered", "foreign", "acks_sent", "acks_taken", "misordered",
}

func (c Count) String() string { return countNames[c] }

// Counts are all of them at one time.
type Counts [numCounts]int64

// Plus adds up the counts of two fleets.
func (c Counts) Plus(other Counts) Counts {
	for i := range c {
		c[i] += other[i]
	}
	return c
}

// Since is what was counted after an earlier time.
func (c Counts) Since(earlier Counts) Counts {
	for i := range c {
		c[i] -= earlier[i]
	}
	return c
}

// Latency names a distribution of latencies.
type Latency int

// What is measured.
const (
	ConnectTime   Latency = iota // from the dial to the answer to record 0
	AckTime                      // from when a message was due to its record's acknowledgement
	ArrivalTime                  // of messages to one client, from when they were due to be submitted
	BroadcastTime                // of messages to all, from the submission
	CatchUpTime                  // of messages that are older than the session, from when it began
	numLatencies
)

var latencyNames = [numLatencies]string{"connect", "ack", "arrival", "broadcast", "catch_up"}

func (l Latency) String() string { return latencyNames[l] }

// Distributions are all latencies of one stretch of time; nil where nothing was recorded.
type Distributions [numLatencies]*measure.Distribution

// Report is what a fleet tells.
type Report struct {
	Counts    Counts           `json:"counts"`    // since its beginning
	Latencies Distributions    `json:"latencies"` // since the report before
	Failures  map[string]int64 `json:"failures,omitempty"`
}

// maxFailures is how many different failures are remembered.
const maxFailures = 20

// meters count what happens in a fleet. They are safe for concurrent use.
type meters struct {
	run          uint64
	first, count int
	counts       [numCounts]atomic.Int64
	latencies    [numLatencies]*measure.Latencies
	down         *measure.Seen // by sequence number
	broadcasts   *measure.Seen // by broadcast and client

	mu       sync.Mutex
	failures map[string]int64 // guarded by mu
}

func newMeters(job Job) *meters {
	m := &meters{
		run: job.Run, first: job.First, count: job.Count,
		down: measure.NewSeen(), broadcasts: measure.NewSeen(), failures: make(map[string]int64),
	}
	for i := range m.latencies {
		m.latencies[i] = measure.NewLatencies()
	}
	return m
}

func (m *meters) add(c Count, n int) { m.counts[c].Add(int64(n)) }

func (m *meters) record(l Latency, d time.Duration) { m.latencies[l].Record(d, 1) }

// acknowledged records how long messages waited that were due at these times, ns since 1970. Many of a record were due at once.
func (m *meters) acknowledged(now time.Time, due []int64) {
	for len(due) > 0 {
		same := 1
		for same < len(due) && due[same] == due[0] {
			same++
		}
		m.latencies[AckTime].Record(time.Duration(now.UnixNano()-due[0]), int64(same))
		due = due[same:]
	}
}

// report takes what gathered.
func (m *meters) report() Report {
	var r Report
	for i := range m.counts {
		r.Counts[i] = m.counts[i].Load()
	}
	for i := range m.latencies {
		r.Latencies[i] = m.latencies[i].Take()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Failures = maps.Clone(m.failures)
	return r
}

// arrived counts a message to a client in a session that began at some time, and says whether it is a new one of this run.
func (m *meters) arrived(now, began time.Time, index int, payload []byte) bool {
	stamp, ok := ParseStamp(UnwrapPayload(payload))
	if !ok || stamp.Run != m.run {
		m.add(Foreign, 1)
		return false
	}
	seen, number, count, latency := m.down, stamp.Sequence, Received, ArrivalTime
	if stamp.Kind == Broadcast {
		seen, number, count, latency = m.broadcasts, stamp.Sequence*uint64(m.count)+uint64(index-m.first), Broadcasts, BroadcastTime
	} else if stamp.Index != index {
		m.add(Misdelivered, 1)
	}
	if !seen.Add(number) {
		m.add(Duplicates, 1)
		return false
	}
	m.add(count, 1)
	if sent := time.Unix(0, stamp.Sent); sent.After(began) {
		m.record(latency, now.Sub(sent))
	} else {
		m.record(CatchUpTime, now.Sub(began))
	}
	return true
}

// failed counts an event together with its reason.
func (m *meters) failed(c Count, err error) {
	m.add(c, 1)
	text := describe(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.failures[text]; known || len(m.failures) < maxFailures {
		m.failures[text]++
	}
}

// describe leaves out of an error what differs from client to client.
func describe(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
