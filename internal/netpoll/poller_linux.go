package netpoll

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many connections one wake-up hands on at most.
const eventsAtOnce = 256

// Poller watches armed connections.
type Poller struct {
	epoll int
	wake  int // an eventfd; readable when the Poller is to end
	done  chan struct{}

	mu     sync.Mutex
	ready  map[int32]func() // guarded by mu, by descriptor: what to call, once
	closed bool             // guarded by mu
}

// New starts a Poller. The caller closes it.
func New() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netpoll: epoll_create: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netpoll: eventfd: %w", err), unix.Close(epoll))
	}
	p := &Poller{epoll: epoll, wake: wake, done: make(chan struct{}), ready: make(map[int32]func())}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event); err != nil {
		return nil, errors.Join(fmt.Errorf("netpoll: epoll_ctl: %w", err), unix.Close(epoll), unix.Close(wake))
	}
	go p.run()
	return p, nil
}

// Arm makes the Poller call ready, in a goroutine that must not be held up, once when c has something to read, has ended
// or has failed. It is level-triggered: what arrived before counts.
func (p *Poller) Arm(c *Conn, ready func()) error {
	var failed error
	err := c.raw.Control(func(fd uintptr) { failed = p.arm(c, int32(fd), ready) })
	if err == nil {
		err = failed
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("netpoll: arm: %w", err)
	}
	return err
}

func (p *Poller) arm(c *Conn, fd int32, ready func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.ready[fd] = ready
	operation := unix.EPOLL_CTL_MOD
	if c.watcher != p {
		operation = unix.EPOLL_CTL_ADD
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd}
	if err := unix.EpollCtl(p.epoll, operation, int(fd), &event); err != nil {
		delete(p.ready, fd)
		return err
	}
	c.watcher = p
	return nil
}

// run hands events on until the Poller is closed.
func (p *Poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, eventsAtOnce)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // only a closed epoll descriptor can do this
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == int32(p.wake) {
				return
			}
			if ready := p.take(event.Fd); ready != nil {
				ready()
			}
		}
	}
}

func (p *Poller) take(fd int32) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	ready := p.ready[fd]
	delete(p.ready, fd)
	return ready
}

// Close ends the Poller and returns when its goroutine has. Armed connections are not called any more.
func (p *Poller) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	p.closed = true
	p.mu.Unlock()
	if _, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("netpoll: waking the poller: %w", err)
	}
	<-p.done
	return errors.Join(unix.Close(p.epoll), unix.Close(p.wake))
}

// readNow reads what has arrived.
func (c *Conn) readNow(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.Read(int(fd), p)
			if !errors.Is(failed, unix.EINTR) {
				return true // whatever came of it: no waiting here
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case errors.Is(failed, unix.EAGAIN):
		return 0, WouldBlock
	case failed != nil:
		return 0, fmt.Errorf("netpoll: read: %w", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
