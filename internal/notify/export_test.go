package notify

import "time"

// Bounds, for tests that reach them.
const (
	MaxTargets              = maxTargets
	MaxWaiting              = maxWaiting
	MaxHandovers            = maxHandovers
	MaxHandoverBytes        = maxHandoverBytes
	MaxHandoversWaiting     = maxHandoversWaiting
	MaxHandoverBytesWaiting = maxHandoverBytesWaiting
	KeyAgain                = keyAgain
	Keyless                 = keyless
)

// The codec of what is handed over.
var (
	Seal         = seal
	Open         = open
	HandoverSize = handoverSize
)

// Elapse ends the backoff of a target and makes it due for another try of the batched form, and for the question for its key.
func (c *Client) Elapse(address string) {
	c.senders.Wait() // what the sender owns may be touched when there is none
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[address]
	t.retryAt, t.singleUntil, t.askKeyAt = time.Time{}, time.Time{}, time.Time{}
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

// KeyDue says when the key of a target may be asked for next.
func (c *Client) KeyDue(address string) time.Time {
	c.senders.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.targets[address].askKeyAt
}
