package service

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// lastWords is how long the agent listens for what should already be in the pipe of a process that has ended.
	lastWords = 100 * time.Millisecond
	// unboundedLastWords is the same where the system does not tell how much is in a pipe.
	unboundedLastWords = time.Second
)

// inflow is the agent's end of a pipe from a process. Others may hold the process's end too, such as a grandchild that left
// the group. So the end of the pipe is not waited for once the process has ended: what is in the pipe then is read, and no
// more.
type inflow struct {
	f *os.File

	mu    sync.Mutex
	ended bool
	left  int // bytes that may still be read after the end
}

// Read implements io.Reader.
func (i *inflow) Read(b []byte) (int, error) {
	for {
		window, ended, err := i.window(b)
		if err != nil {
			return 0, err
		}
		n, err := i.f.Read(window)
		if n == 0 && i.woken(ended, err) {
			continue // the end came while it waited
		}
		if ended {
			n, err = i.rest(n, err)
		}
		return n, err
	}
}

// window is the part of b that may be filled.
func (i *inflow) window(b []byte) (window []byte, ended bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.ended {
		return b, false, nil
	}
	if i.left == 0 {
		return nil, true, io.EOF
	}
	_ = i.f.SetReadDeadline(time.Now().Add(lastWords)) // without deadlines finish closes the file
	return b[:min(len(b), i.left)], true, nil
}

func (i *inflow) woken(ended bool, err error) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !ended && i.ended && errors.Is(err, os.ErrDeadlineExceeded)
}

// rest accounts for a read after the end. Whatever goes wrong with it is the end of the pipe.
func (i *inflow) rest(n int, err error) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left -= n
	if err != nil {
		i.left = 0
		err = io.EOF
	}
	return n, err
}

// SetReadDeadline is for the reader of the protocol. After the end there are other deadlines.
func (i *inflow) SetReadDeadline(t time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return nil
	}
	return i.f.SetReadDeadline(t)
}

// finish says that the process has ended.
func (i *inflow) finish() {
	i.mu.Lock()
	defer i.mu.Unlock()
	left, known := unread(i.f)
	i.ended, i.left = true, left
	if !known {
		i.left = maxKeptBytes
	}
	if err := i.f.SetReadDeadline(time.Now()); err != nil {
		time.AfterFunc(unboundedLastWords, i.close)
	}
}

// close ends reads. It may be called more than once.
func (i *inflow) close() { _ = i.f.Close() }
