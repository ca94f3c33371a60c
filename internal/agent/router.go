package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Errors of the messages that services send.
var (
	ErrNoDestination      = errors.New("the message has no destination service")
	ErrForeignClient      = errors.New("the message is addressed to another client")
	ErrReservedService    = errors.New("services may not send to the service \"system\"")
	ErrServiceUnavailable = errors.New("no such service is installed")
)

// roomTimeout is how long a service may hold up the session with messages that are larger than was to be expected when they
// were granted. After a session that was ended for it the tokens fit.
const roomTimeout = time.Minute

var errNoRoom = errors.New("it takes no messages, and the ones that wait fill its inbox")

// router brings messages to their services: from the server, and between services of this agent. A slow service holds up no
// other and no acknowledgement as long as what the server was granted fits into its inbox (G-38, G-61).
type router struct {
	self    func() identity.ClientID
	reports *reports
	// beacon holds a token when a service has so many tokens to return that they should not wait for a record.
	beacon chan struct{}

	mu    sync.Mutex
	boxes map[string]*inbox // of every service there ever was: names are few
	open  map[string]bool   // services that are installed
	seen  *seen
}

func newRouter(self func() identity.ClientID, reports *reports) *router {
	return &router{
		self:    self,
		reports: reports,
		beacon:  make(chan struct{}, 1),
		boxes:   make(map[string]*inbox),
		open:    make(map[string]bool),
		seen:    newSeen(),
	}
}

// attach makes a name a destination, and returns its inbox, where the messages that came during a restart wait.
func (r *router) attach(name string) *inbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	box, known := r.boxes[name]
	if !known {
		box = newInbox()
		r.boxes[name] = box
	}
	r.open[name] = true
	return box
}

// detach ends a name as a destination. What is still queued fails.
func (r *router) detach(ctx context.Context, name string) {
	r.mu.Lock()
	box := r.boxes[name]
	delete(r.open, name)
	r.mu.Unlock()
	if box == nil {
		return
	}
	for _, d := range box.drain() {
		r.settle(ctx, d, fmt.Errorf("%w: %q was removed", ErrServiceUnavailable, name))
	}
}

// inboxes returns those of the installed services.
func (r *router) inboxes() map[string]*inbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]*inbox, len(r.open))
	for name := range r.open {
		out[name] = r.boxes[name]
	}
	return out
}

// deliver takes messages from the server, for the client as which the contact was made. A message that was granted and for
// which there is no room holds up the ones behind it, and with them whoever calls, for up to roomTimeout. The error is that
// this was not enough, or that ctx has ended; what is left of the messages is for the server to repeat then.
func (r *router) deliver(ctx context.Context, client identity.ClientID, messages []*fspb.Message) error {
	ctx, cancel := context.WithTimeoutCause(ctx, roomTimeout, errNoRoom)
	defer cancel()
	drops := 0
	var first string
	for _, m := range messages {
		err := r.deliverOne(ctx, client, m)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("service %.100q: %w", m.GetDestination().GetServiceName(), context.Cause(ctx))
		case drops == 0:
			first = fmt.Sprintf("%.32x of type %.100q for service %.100q: %v", m.GetMessageId(), m.GetMessageType(),
				m.GetDestination().GetServiceName(), err)
		}
		drops++
	}
	if drops > 0 {
		glog.Warningf("%d of %d messages are dropped, the first of them is %s", drops, len(messages), first)
	}
	return nil
}

// deliverOne waits for room until ctx ends.
func (r *router) deliverOne(ctx context.Context, client identity.ClientID, m *fspb.Message) error {
	id, err := identity.MessageIDFromBytes(m.GetMessageId())
	if err != nil {
		return err
	}
	if to := m.GetDestination().GetClientId(); !bytes.Equal(to, client.Bytes()) {
		return fmt.Errorf("it is addressed to client %.16x, this is %v", to, client)
	}
	for {
		room, err := r.tryDeliver(id, m)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryDeliver is done with the message, or returns the channel that is closed when it is worth another try.
func (r *router) tryDeliver(id identity.MessageID, m *fspb.Message) (room <-chan struct{}, err error) {
	name := m.Destination.ServiceName
	r.mu.Lock()
	defer r.mu.Unlock()
	box := r.boxes[name]
	if past, known := r.seen.find(id); known && !id.IsNil() {
		if box != nil {
			box.skip()
		}
		return nil, r.repeatLocked(id, past)
	}
	if !r.open[name] {
		text := fmt.Sprintf("%v: %.100q", ErrServiceUnavailable, name)
		return nil, r.answerLocked(id, outcome{state: outcomeFailed, text: text})
	}
	room, err = box.offer(newDelivery(m, false))
	if room == nil && err == nil && !id.IsNil() {
		r.seen.set(id, outcome{state: outcomePending})
	}
	return room, err
}

// repeatLocked answers a message that came before, without having it executed again.
func (r *router) repeatLocked(id identity.MessageID, past outcome) error {
	if past.state == outcomePending {
		return nil // its answer is still to come
	}
	return r.answerLocked(id, past)
}

// answerLocked reports an outcome without waiting: if there is no room, the server's next repeat has another chance.
func (r *router) answerLocked(id identity.MessageID, o outcome) error {
	if id.IsNil() {
		return nil
	}
	r.seen.set(id, o)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait
	if o.state == outcomeDone {
		return r.reports.ack(ctx, id)
	}
	return r.reports.fail(ctx, id, o.text)
}

// settle reports what became of a delivered message: to the server, if it came from there with an ID (G-19). It waits for
// room until ctx ends.
func (r *router) settle(ctx context.Context, d *delivery, failure error) {
	id := r.idOf(d)
	if id.IsNil() {
		r.reports.wake() // the agent may have a new identity, with no acknowledgement to send about it
		if failure != nil && !errors.Is(failure, errNoOutcome) {
			glog.Warningf("message of type %.100q for service %q failed: %v", d.message.MessageType,
				d.message.GetDestination().GetServiceName(), failure)
		}
		return
	}
	var err error
	switch {
	case errors.Is(failure, errNoOutcome):
		return
	case failure != nil:
		text := validText(failure.Error(), maxErrorText)
		r.note(id, outcome{state: outcomeFailed, text: text})
		err = r.reports.fail(ctx, id, text)
	default:
		r.note(id, outcome{state: outcomeDone})
		err = r.reports.ack(ctx, id)
	}
	if err != nil {
		glog.Warningf("the outcome of message %v is reported when the server repeats it: %v", id, err)
	}
}

// unsettle forgets a message whose processing was broken off by a stop, so that a repeat is processed.
func (r *router) unsettle(d *delivery) {
	if id := r.idOf(d); !id.IsNil() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen.forget(id)
	}
}

func (r *router) note(id identity.MessageID, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.set(id, o)
}

// idOf returns the ID under which the server waits for an outcome; local messages have none.
func (r *router) idOf(d *delivery) identity.MessageID {
	if d.local {
		return identity.MessageID{}
	}
	id, err := identity.MessageIDFromBytes(d.message.MessageId)
	if err != nil {
		return identity.MessageID{} // was checked on arrival
	}
	return id
}

// deliverLocal takes a message from a service of this agent for another one.
func (r *router) deliverLocal(ctx context.Context, m *fspb.Message) error {
	name := m.Destination.ServiceName
	r.mu.Lock()
	box, open := r.boxes[name], r.open[name]
	r.mu.Unlock()
	if !open {
		return fmt.Errorf("%w: %q", ErrServiceUnavailable, name)
	}
	return box.put(ctx, newDelivery(m, true))
}

// returned notes that a service took a message and that its token may go back.
func (r *router) returned() {
	select {
	case r.beacon <- struct{}{}:
	default:
	}
}
