package notify

import "time"

// Bounds, for tests that reach them.
const (
	MaxTargets = maxTargets
	MaxWaiting = maxWaiting
)

// Elapse ends the backoff of a target and makes it due for another try of the batched form.
func (c *Client) Elapse(address string) {
	c.senders.Wait() // what the sender owns may be touched when there is none
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[address]
	t.retryAt, t.singleUntil = time.Time{}, time.Time{}
}

// Settled waits until nothing is being sent.
func (c *Client) Settled() { c.senders.Wait() }

// Rest lets the line to a server have been idle for as long as it may be.
func (c *Client) Rest(address string) {
	c.senders.Wait()
	c.mu.Lock()
	t := c.targets[address]
	t.used = t.used.Add(-connectionIdle)
	c.mu.Unlock()
	c.rested(t)
}
