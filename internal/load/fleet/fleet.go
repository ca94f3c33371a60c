// Package fleet simulates agents: many clients in one process, each with a key of its own and a real streaming session
// over mutual TLS. It is the part of a load test that stands where endpoints stand.
//
// # What a simulated client does
//
// It keeps one session open and takes its end as an agent does: after done_sending it finishes and connects again soon,
// after a failure it waits with full jitter, up to a second and half as long again with each further one. It acknowledges
// what it receives through the system service and returns message tokens; both gather while the previous record is under
// way, so one record is in flight unless Job.Window says more. It sends messages of its own when told to, in order, and
// again when a session ended before their acknowledgement.
//
// # What it costs
//
// An idle client is a TLS connection, one goroutine blocked in a read, and a few hundred bytes. Handshakes run in a
// bounded number of goroutines, and the session continues on a fresh stack. What a client needs to send is allocated when
// it sends and given back when everything is acknowledged. Records are encoded and decoded by hand.
//
// # Who owns what
//
// A Fleet owns its clients, its dialing goroutines and the goroutines of sessions; Close waits for all of them. Serve
// runs one Fleet by commands that come as lines of JSON, and reports what happened in the same form, so that a fleet can
// be spread over processes.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Fleet is some simulated clients. Its methods are safe for concurrent use.
type Fleet struct {
	job     Job
	keys    *Keyring
	dialer  *Dialer
	meters  *meters
	clients []*client
	dials   *rate.Limiter // nil when there is no limit
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // dialing goroutines and sessions

	// Guarded by mu.
	mu     sync.Mutex
	wanted *sync.Cond // there is work for dialing goroutines, or the fleet closes
	queue  []*client  // to be dialed, oldest first
	closed bool
	timers map[*client]*time.Timer // reconnects that are waited for

	sending atomic.Pointer[Sending] // nil while clients have nothing to send by themselves
	pacing  routine
	churn   routine
}

// New returns a fleet that is not connected.
func New(job Job, keys *Keyring) (*Fleet, error) {
	job.setDefaults()
	d, err := NewDialer(job)
	if err != nil {
		return nil, err
	}
	if !keys.holds(job.First, job.Count) {
		return nil, fmt.Errorf("there are no keys for clients %d to %d", job.First, job.First+job.Count-1)
	}
	f := &Fleet{job: job, keys: keys, dialer: d, meters: newMeters(job), timers: make(map[*client]*time.Timer)}
	f.wanted = sync.NewCond(&f.mu)
	f.life, f.stop = context.WithCancel(context.Background())
	if job.ConnectRate > 0 {
		f.dials = rate.NewLimiter(rate.Limit(job.ConnectRate), max(1, int(job.ConnectRate/100)))
	}
	clients := make([]client, job.Count)
	f.clients = make([]*client, job.Count)
	for i := range clients {
		clients[i].fleet, clients[i].index = f, job.First+i
		f.clients[i] = &clients[i]
	}
	for range job.Dials {
		f.running.Go(f.dialForever)
	}
	return f, nil
}

// Connect makes all clients that are away connect, and keeps them connected until they are told otherwise.
func (f *Fleet) Connect() {
	for _, i := range rand.Perm(len(f.clients)) {
		f.clients[i].wantOnline(true)
	}
}

// Disconnect closes all sessions. Nobody connects again.
func (f *Fleet) Disconnect() {
	for _, c := range f.clients {
		c.wantOnline(false)
	}
}

// Close ends everything and waits for it.
func (f *Fleet) Close() {
	f.stop()
	f.churn.halt()
	f.mu.Lock()
	f.closed = true
	f.queue = nil
	for c, t := range f.timers {
		t.Stop()
		delete(f.timers, c)
	}
	f.wanted.Broadcast()
	f.mu.Unlock()
	f.Disconnect() // which also ends blocked writes
	f.StopSending()
	f.running.Wait()
}

// enqueue puts a client into the line of those to be dialed.
func (f *Fleet) enqueue(c *client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.timers, c)
	if f.closed {
		return
	}
	f.queue = append(f.queue, c)
	f.wanted.Signal()
}

// enqueueAfter does so after a delay.
func (f *Fleet) enqueueAfter(c *client, delay time.Duration) {
	if delay <= 0 {
		f.enqueue(c)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.timers[c] = time.AfterFunc(delay, func() { f.enqueue(c) })
	}
}

// next waits for a client to dial; it is nil when the fleet closes.
func (f *Fleet) next() *client {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) == 0 && !f.closed {
		f.wanted.Wait()
	}
	if f.closed {
		return nil
	}
	c := f.queue[0]
	f.queue = f.queue[1:]
	return c
}

// dialForever connects clients, one at a time.
func (f *Fleet) dialForever() {
	for c := f.next(); c != nil; c = f.next() {
		if f.dials != nil && f.dials.Wait(f.life) != nil {
			return
		}
		f.connect(c)
	}
}

// connect opens a session for a client and starts its goroutine, or arranges for the next try.
func (f *Fleet) connect(c *client) {
	server, record, tickets, ok := c.beginDial()
	if !ok {
		return
	}
	began := time.Now()
	l, err := f.dialer.open(f.life, server, f.keys, c.index, tickets, record)
	if err != nil {
		f.meters.failed(Failures, err)
		if wait, again := c.dialFailed(); again && f.life.Err() == nil {
			f.enqueueAfter(c, max(wait, retryAfter(err)))
		}
		return
	}
	f.meters.record(ConnectTime, time.Since(began))
	if l.conn.ConnectionState().DidResume {
		f.meters.add(Resumed, 1)
	}
	if !c.attach(l) {
		l.close()
		return
	}
	f.meters.add(Connects, 1)
	f.meters.add(Connected, 1)
	f.running.Go(func() { f.runSession(c, l) }) // on a fresh, small stack
}

// runSession reads until the session ends, and arranges for the next one.
func (f *Fleet) runSession(c *client, l *link) {
	err := c.read(l)
	l.close()
	f.meters.add(Connected, -1)
	orderly := errors.Is(err, errFarewell)
	if !orderly && f.life.Err() == nil && c.isOnline() {
		f.meters.failed(Lost, err)
	}
	if wait, again := c.detach(l, orderly); again && f.life.Err() == nil {
		f.enqueueAfter(c, wait)
	}
}
