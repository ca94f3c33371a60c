//go:build !linux

package netpoll

import (
	"sync"
	"time"
)

// Poller watches armed connections: here with a goroutine for each of them that is armed, as the runtime offers it.
type Poller struct {
	mu      sync.Mutex
	closed  bool // guarded by mu
	waiting sync.WaitGroup
}

// New returns a Poller. The caller closes it.
func New() (*Poller, error) { return &Poller{}, nil }

// Arm makes the Poller call ready once when c has something to read, has ended or has failed.
func (p *Poller) Arm(c *Conn, ready func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.waiting.Go(func() {
		looked := false
		_ = c.raw.Read(func(uintptr) bool { // an error is for the reader to find
			again := looked
			looked = true
			return again
		})
		ready()
	})
	return nil
}

// Close ends the Poller. Armed connections have to be shut down before.
func (p *Poller) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.waiting.Wait()
	return nil
}

// readNow reads what has arrived, or arrives within an instant.
func (c *Conn) readNow(p []byte) (int, error) {
	const instant = time.Millisecond
	if err := c.Conn.SetReadDeadline(time.Now().Add(instant)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if late, ok := err.(interface{ Timeout() bool }); ok && late.Timeout() {
		err = WouldBlock
	}
	if resetErr := c.Conn.SetReadDeadline(time.Time{}); err == nil {
		err = resetErr
	}
	return n, err
}

// writeNow writes nothing: what is written waits if it has to.
func (c *Conn) writeNow([]byte) (int, error) { return 0, WouldBlock }
