package notify

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

// Bounds of a Client.
const (
	// maxTargets is the number of servers it keeps in mind; an installation has tens.
	maxTargets = 1024
	// maxWaiting is the number of clients that may wait for the next request to one server, 8 full batches. More than
	// that many clients of one server with new messages within one round trip are better found by its sweep.
	maxWaiting = 8 * MaxBatchIDs
	// targetIdle is after what time an unused server may be forgotten.
	targetIdle = 10 * time.Minute
)

// localAddress is what the original stores for a server that takes no notifications from outside.
const localAddress = "local"

// Client sends notifications. Its methods never block and never fail; they are safe for concurrent use.
//
// Hints for one server are collected while a request to it is under way, and the next request carries them all.
type Client struct {
	cfg     Config
	dialer  net.Dialer
	metrics *clientMetrics

	// Requests use ctx; it ends when Close gives up.
	ctx    context.Context
	cancel context.CancelFunc

	senders sync.WaitGroup // one for each target that is being sent to

	mu      sync.Mutex
	targets map[string]*target // by address
	closed  bool
}

// NewClient makes a Client. The caller closes it.
func NewClient(cfg Config) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	c := &Client{cfg: cfg, dialer: net.Dialer{Timeout: cfg.Timeout}, targets: make(map[string]*target)}
	c.metrics = newClientMetrics(cfg.Registerer, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.targets))
	})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Notify tells the server at address (host:port) that messages wait for these clients. The addresses "" and "local" name no
// server and are skipped.
func (c *Client) Notify(address string, ids ...identity.ClientID) {
	if len(ids) == 0 {
		return
	}
	c.hint(address, len(ids), func(t *target) {
		for _, id := range ids {
			c.note(t, id, hintWake)
		}
	})
}

// NotifyBlacklisted tells the server at address that a client was blacklisted.
func (c *Client) NotifyBlacklisted(address string, id identity.ClientID) {
	c.hint(address, 1, func(t *target) { c.note(t, id, hintBlacklisted) })
}

// NotifyBroadcasts tells the servers at these addresses that the set of active broadcasts changed.
func (c *Client) NotifyBroadcasts(addresses []string) {
	for _, address := range addresses {
		c.hint(address, 1, func(t *target) {
			if t.broadcasts {
				c.metrics.coalesced.Inc()
			}
			t.broadcasts = true
		})
	}
}

// hint finds the target, lets add put count hints to it, and sees to it that somebody sends them.
func (c *Client) hint(address string, count int, add func(*target)) {
	if c.cfg.Disabled || address == "" || address == localAddress {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.metrics.drop(droppedClosed, count)
		return
	}
	t, reason := c.target(address, now)
	switch {
	case t == nil:
		c.metrics.drop(reason, count)
		return
	case now.Before(t.retryAt):
		c.metrics.drop(droppedBackoff, count)
		return
	}
	t.used = now
	add(t)
	if !t.sending && t.loaded() {
		t.sending = true
		c.senders.Go(func() { c.send(t) })
	}
}

// note adds one hint to a target. The caller holds mu.
func (c *Client) note(t *target, id identity.ClientID, kind hintKind) {
	had, known := t.waiting[id]
	switch {
	case had&kind != 0:
		c.metrics.coalesced.Inc()
	case !known && len(t.waiting) >= maxWaiting:
		c.metrics.drop(droppedQueueFull, 1)
	default:
		if t.waiting == nil {
			t.waiting = make(map[identity.ClientID]hintKind)
		}
		t.waiting[id] = had | kind
	}
}

// target returns the target of an address, or why there is none. The caller holds mu.
func (c *Client) target(address string, now time.Time) (t *target, reason string) {
	if t := c.targets[address]; t != nil {
		return t, ""
	}
	if !usable(address) {
		return nil, droppedBadAddress
	}
	if len(c.targets) >= maxTargets {
		c.evict(now)
	}
	if len(c.targets) >= maxTargets {
		return nil, droppedTooManyTargets
	}
	t = &target{address: address}
	c.targets[address] = t
	return t, ""
}

// evict forgets the targets that were not used for a while, or else the one that was not used the longest. Those that are
// being sent to stay. The caller holds mu.
func (c *Client) evict(now time.Time) {
	var oldest *target
	for address, t := range c.targets {
		switch {
		case t.sending:
		case now.Sub(t.used) > targetIdle:
			t.forget()
			delete(c.targets, address)
		case oldest == nil || t.used.Before(oldest.used):
			oldest = t
		}
	}
	if len(c.targets) >= maxTargets && oldest != nil {
		oldest.forget()
		delete(c.targets, oldest.address)
	}
}

// Close drops hints that come from now on, and returns when what was taken is sent, or failed. When ctx ends first, the
// requests are cancelled and the error of ctx is returned.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		c.senders.Wait()
		close(ended)
	}()
	defer c.forgetTargets()
	defer c.cancel()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		c.cancel()
		<-ended
		return fmt.Errorf("notify: close: %w", ctx.Err())
	}
}

// forgetTargets closes the lines to all servers. There are no senders any more.
func (c *Client) forgetTargets() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		t.forget()
	}
}
