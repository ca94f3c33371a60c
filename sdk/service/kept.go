package service

import (
	"container/list"
	"sync"
)

// keptBytes is how much memory the messages of a Socket may take, in bytes, before Send waits. One message always fits.
const keptBytes = 20 << 20

// kept holds the messages of a Socket from Send to their LocalAck, in the order of Send. Only so many of them are under
// way at a time, on the present connection; the others wait.
type kept struct {
	window int // how many may be under way
	limit  int // how many may be kept

	mu       sync.Mutex
	byID     map[string]*list.Element
	order    list.List     // of *keptMessage
	next     *list.Element // the first that is not under way; nil when all are
	underWay int
	bytes    int
	waiting  int           // calls of Send and Flush that wait for acknowledgements
	changed  chan struct{} // closed, and replaced, when messages leave

	work   chan struct{} // has room for one: something may be taken
	wanted chan struct{} // has room for one: urgent may have become true
}

type keptMessage struct {
	id    string
	frame []byte
	sent  bool // on the present connection
}

func newKept(window, limit int) *kept {
	return &kept{
		window: window, limit: limit,
		byID: make(map[string]*list.Element), changed: make(chan struct{}),
		work: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
	}
}

// tryPut keeps a message. It returns nil when the message is kept, else what says when to try again. A message that is
// kept already is the same one.
func (k *kept) tryPut(id string, frame []byte) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID[id] != nil {
		return nil
	}
	if n := k.order.Len(); n >= k.limit || n > 0 && k.bytes+len(frame) > keptBytes {
		return k.changed
	}
	e := k.order.PushBack(&keptMessage{id: id, frame: frame})
	k.byID[id] = e
	k.bytes += len(frame)
	if k.next == nil {
		k.next = e
	}
	signal(k.work)
	k.announceLocked()
	return nil
}

// take returns the next frame to write, or nil when there is none or the window is full.
func (k *kept) take() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil || k.underWay >= k.window {
		return nil
	}
	m := k.next.Value.(*keptMessage)
	m.sent = true
	k.next = k.next.Next()
	k.underWay++
	k.announceLocked()
	return m.frame
}

// acknowledge forgets messages. Unknown IDs count for nothing.
func (k *kept) acknowledge(ids [][]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		e := k.byID[string(id)]
		if e == nil {
			continue
		}
		m := e.Value.(*keptMessage)
		if m.sent {
			k.underWay--
		}
		if k.next == e {
			k.next = e.Next()
		}
		k.order.Remove(e)
		delete(k.byID, m.id)
		k.bytes -= len(m.frame)
	}
	close(k.changed)
	k.changed = make(chan struct{})
	signal(k.work)
}

// rewind starts over for a new connection.
func (k *kept) rewind() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.order.Front(); e != nil; e = e.Next() {
		e.Value.(*keptMessage).sent = false
	}
	k.next, k.underWay = k.order.Front(), 0
	signal(k.work)
}

// state is how many messages are kept, and what says that some have left.
func (k *kept) state() (count int, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.order.Len(), k.changed
}

// await notes that somebody waits for acknowledgements, until done is called.
func (k *kept) await() (done func()) {
	k.wait(1)
	return func() { k.wait(-1) }
}

func (k *kept) wait(more int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting += more
	k.announceLocked()
}

// urgent reports whether something cannot go on without acknowledgements: a call, or a message that waits for the window.
// Acknowledgements of the last few messages, which nobody waits for, have time.
func (k *kept) urgent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.urgentLocked()
}

func (k *kept) urgentLocked() bool {
	return k.waiting > 0 || k.next != nil && k.underWay >= k.window
}

func (k *kept) announceLocked() {
	if k.urgentLocked() {
		signal(k.wanted)
	}
}
