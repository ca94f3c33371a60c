package netpoll

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many connections one wake-up hands on at most, before the goroutines that were woken have their turn.
const eventsAtOnce = 64

// Poller watches armed connections. Its epoll instance is itself watched by the runtime's, like a connection: so what arrives
// wakes one thread, not one in each of them, and no thread is blocked meanwhile.
type Poller struct {
	epoll  *os.File
	events syscall.RawConn // of epoll
	done   chan struct{}

	mu     sync.Mutex
	ready  map[int32]func() // guarded by mu, by descriptor: what to call, once
	closed bool             // guarded by mu
}

// New starts a Poller. The caller closes it.
func New() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // or the runtime would not watch it
	}
	if err != nil {
		return nil, fmt.Errorf("netpoll: epoll_create: %w", err)
	}
	epoll := os.NewFile(uintptr(fd), "epoll")
	events, err := epoll.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netpoll: epoll: %w", err), epoll.Close())
	}
	p := &Poller{epoll: epoll, events: events, done: make(chan struct{}), ready: make(map[int32]func())}
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
	var failed error
	err := p.events.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), operation, int(fd), &event) })
	if err = errors.Join(err, failed); err != nil {
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
		n, err := p.wait(events)
		if err != nil {
			return // closed
		}
		for _, event := range events[:n] {
			if ready := p.take(event.Fd); ready != nil {
				ready()
			}
		}
		if n == len(events) {
			runtime.Gosched() // there are more: let those that were woken finish, so that few goroutines do the work of many
		}
	}
}

// wait returns the next events, one at least.
func (p *Poller) wait(events []unix.EpollEvent) (n int, err error) {
	var failed error
	err = p.events.Read(func(epoll uintptr) bool {
		for {
			n, failed = unix.EpollWait(int(epoll), events, 0)
			if !errors.Is(failed, unix.EINTR) {
				return n != 0 // none: the runtime waits
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return n, nil
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
	err := p.epoll.Close() // ends the waiting
	<-p.done
	return err
}

// readNow reads what has arrived.
func (c *Conn) readNow(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err = now("read", c.raw.Read, func(fd int) (int, error) { return unix.Read(fd, p) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// writeNow writes what there is room for.
func (c *Conn) writeNow(p []byte) (n int, err error) {
	return now("write", c.raw.Write, func(fd int) (int, error) { return unix.Write(fd, p) })
}

// now does a system call that moves bytes, once, and does not wait: it returns WouldBlock when there is nothing to move.
func now(name string, locked func(func(fd uintptr) bool) error, call func(fd int) (int, error)) (n int, err error) {
	var failed error
	err = locked(func(fd uintptr) bool {
		for {
			n, failed = call(int(fd))
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
		return 0, fmt.Errorf("netpoll: %s: %w", name, failed)
	}
	return n, nil
}
