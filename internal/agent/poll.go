package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// pollTimeout bounds one exchange with one server.
	pollTimeout = 5 * time.Minute
	// A queue of this size is polled out at once.
	pollNowMessages = 100
	pollNowBytes    = 15 << 20
	// activityDelay, and a tenth of the time since the last activity, is the wait before the next poll while things happen.
	activityDelay = 200 * time.Millisecond
	// idlePause is the planned wait from which on kept connections are closed.
	idlePause = 30 * time.Second
)

// schedule says when to poll next.
type schedule struct {
	cfg          LinkConfig
	last         time.Time // good poll; zero when there was none, or when a poll has failed since
	lastActivity time.Time // poll that sent a message of the foreground or received one; zero if there was none
}

// wait returns how long to wait from now. It draws new jitter on each call.
func (s schedule) wait(now time.Time, queue outboxStats) time.Duration {
	if s.last.IsZero() || queue.Waiting >= pollNowMessages || queue.WaitingBytes >= pollNowBytes {
		return 0
	}
	next := s.last.Add(stretch(s.cfg.MaxPollDelay))
	if !s.lastActivity.IsZero() {
		next = earlier(next, s.last.Add(activityDelay+s.last.Sub(s.lastActivity)/10))
	}
	if queue.Waiting > 0 {
		next = earlier(next, queue.Oldest.Add(stretch(s.cfg.MaxBufferDelay)))
	}
	return max(0, next.Sub(now))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// runPolls polls until ctx ends or the agent leaves, which it does after a last poll if something waits (G-57).
func (l *link) runPolls(ctx context.Context) error {
	failures := newBackoff(l.cfg.MaxFailureDelay)
	plan := schedule{cfg: l.cfg}
	var lastGood time.Time
	for l.awaitPoll(ctx, plan) {
		active, err := l.pollRound(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if err == nil {
			failures.Reset()
			plan.last, lastGood = now, now
			if active {
				plan.lastActivity = now
			}
			continue
		}
		plan.last = time.Time{} // the wait after a failure is all there is to wait for
		if silent := now.Sub(lastGood); !lastGood.IsZero() && silent > l.cfg.LonelyLimit {
			return fmt.Errorf("%w: %v", ErrLonely, silent.Round(time.Second))
		}
		if !l.await(ctx, failures.NextBackOff()) {
			return nil
		}
	}
	return nil
}

// awaitPoll waits until the schedule wants a poll.
func (l *link) awaitPoll(ctx context.Context, plan schedule) bool {
	for ctx.Err() == nil {
		queue := l.outbox.stats()
		wait := plan.wait(time.Now(), queue)
		switch {
		case l.leaving():
			return false
		case queue.Closed && queue.Waiting > 0, wait == 0:
			return true
		case wait > idlePause:
			l.transports.closeIdle()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			return true
		case <-l.wake:
			timer.Stop()
			return true
		case <-l.outbox.ready(): // another schedule
		case <-l.leave:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return false
}

// pollRound sends one batch to the first server that takes it. active says that something happened that makes more likely.
func (l *link) pollRound(ctx context.Context) (active bool, err error) {
	l.watchdog.reset()
	id := l.state.identity()
	b := l.outbox.open(id.ID, l.batchLimit())
	grant := grant{}
	c := contact{
		nonce:  l.state.nonce(),
		clock:  time.Now(),
		tokens: grant.first(l.router.inboxes()),
		labels: l.labels,
	}
	body, err := c.encode(b)
	if err != nil {
		b.abandon(false)
		return false, err
	}
	reply, err := l.pollServers(ctx, id, body)
	if err != nil {
		var status *statusError
		b.abandon(errors.As(err, &status) && status.content())
		return false, err
	}
	l.state.setNonce(reply.SequencingNonce)
	if err := l.router.deliver(ctx, id.ID, reply.Messages); err != nil {
		glog.Warningf("messages of a reply are left to the server to repeat: %v", err) // the poll itself has succeeded
	}
	l.noteContact()
	active = len(reply.Messages) > 0 || b.foreground()
	if b != nil {
		b.accept()
	}
	l.outbox.opened()
	return active, nil
}

// abandon gives the messages back after a failed poll. b may be nil.
func (b *batch) abandon(suspect bool) {
	switch {
	case b == nil:
	case suspect:
		b.blame()
	default:
		b.giveBack()
	}
}

// foreground reports whether the batch, which may be nil, has a message that counts as activity.
func (b *batch) foreground() bool {
	if b == nil {
		return false
	}
	for _, p := range b.parcels {
		if !p.background {
			return true
		}
	}
	return false
}

// pollServers sends the same bytes to one server after the other.
func (l *link) pollServers(ctx context.Context, id *Identity, body []byte) (*fspb.ContactData, error) {
	err := errNoServerReady
	for _, p := range l.endpoints.ready(time.Now()) {
		var reply *fspb.ContactData
		reply, err = l.poll(ctx, p, id, body)
		if err != nil && l.tryPlain(p, err) {
			glog.Infof("server %s does not take compressed data, going on without", p.address)
			reply, err = l.poll(ctx, p, id, body)
		}
		if err == nil {
			l.endpoints.prefer(p)
			return reply, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		l.noteFailure(p, err)
		l.postpone(p, err)
	}
	l.endpoints.disappoint()
	return nil, err
}

// poll is one exchange.
func (l *link) poll(ctx context.Context, p *endpoint, id *Identity, body []byte) (*fspb.ContactData, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pollTimeout, errTooSlow)
	defer cancel()
	started := time.Now()
	reply, err := l.exchange(ctx, p, id, body)
	if err != nil {
		err = explain(ctx, err)
		l.noteBroken(err, len(body), time.Since(started))
		return nil, err
	}
	return reply, nil
}

// exchange sends a poll and reads the reply.
func (l *link) exchange(ctx context.Context, p *endpoint, id *Identity, body []byte) (*fspb.ContactData, error) {
	request, err := l.pollRequest(ctx, p, id, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	started := time.Now()
	response, err := l.transports.get(id).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, newStatusError(response)
	}
	l.transports.learn(response.Header)
	l.measure(len(body), time.Since(started)) // before compression, as batches are counted
	return readReply(ctx, response.Body)
}

func (l *link) pollRequest(ctx context.Context, p *endpoint, id *Identity, body []byte) (*http.Request, error) {
	compressed := l.deflates(p)
	if compressed {
		body = wire.AppendDeflated(nil, body)
	}
	request, err := l.request(ctx, id, http.MethodPost, "https://"+p.address+"/message", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set(wire.AgentHeader, l.cfg.Version)
	if compressed {
		wire.EncodingDeflate.SetHeader(request.Header)
		request.ContentLength = -1 // the original takes it for the length of what comes out (G-05)
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	return request, nil
}

func readReply(ctx context.Context, body io.Reader) (*fspb.ContactData, error) {
	record, err := wire.ReadAll(ctx, body, wire.MaxReadServerRecord, nil)
	if err != nil {
		return nil, fmt.Errorf("reply of the server: %w", err)
	}
	defer record.Release()
	reply := &fspb.ContactData{}
	if err := wire.Unmarshal(record.Bytes(), reply, wire.MaxServerElements); err != nil {
		return nil, fmt.Errorf("reply of the server: %w", err)
	}
	return reply, nil
}
