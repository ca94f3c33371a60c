package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// statusError is a reply that accepts nothing.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }

// send sends what waits for a target until nothing does, or until a request fails.
func (c *Client) send(t *target) {
	for {
		l, ok := c.next(t)
		if !ok {
			return
		}
		err := c.deliver(t, l)
		c.settle(t, err)
	}
}

// next takes the next load; without one the sender is over.
func (c *Client) next(t *target) (load, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.loaded() {
		t.sending = false
		c.rest(t)
		return load{}, false
	}
	l := t.take()
	c.metrics.uncarried(uncarriedHinted, l.hinted)
	return l, true
}

// settle notes how a load fared. After a failure, what gathered meanwhile goes too.
func (c *Client) settle(t *target, err error) {
	c.mu.Lock()
	first := err != nil && t.failures == 0
	if err == nil {
		t.succeeded()
	} else {
		t.failed(time.Now())
		for t.loaded() {
			l := t.take()
			c.metrics.drop(droppedBackoff, l.size())
			c.metrics.uncarried(uncarriedFailed, len(l.handovers)+l.hinted)
		}
	}
	c.mu.Unlock()
	if first && c.cfg.Failed != nil && c.ctx.Err() == nil {
		c.cfg.Failed(t.address, err)
	}
}

// deliver sends one load in the form that the target understands. Hints of a failed load are dropped here.
func (c *Client) deliver(t *target, l load) error {
	if time.Now().Before(t.singleUntil) {
		return c.deliverSingly(t, l)
	}
	err := c.deliverBatch(t, l)
	var status statusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status) && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed):
		t.singleUntil = time.Now().Add(singleFor)
		return c.deliverSingly(t, l)
	}
	c.metrics.failed.WithLabelValues(failure(err)).Inc()
	c.metrics.drop(droppedFailed, l.size())
	c.metrics.uncarried(uncarriedFailed, len(l.handovers))
	return err
}

func (c *Client) deliverBatch(t *target, l load) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout)
	defer cancel()
	sealed, reason := c.seal(ctx, t, l.handovers)
	body, err := proto.Marshal(&notifypb.Batch{
		ClientIds:            rawIDs(l.wake, l.handed),
		BlacklistedClientIds: rawIDs(l.blacklisted),
		BroadcastsChanged:    l.broadcasts,
		Sealed:               sealed,
	})
	if err != nil {
		return fmt.Errorf("encode batch: %w", err)
	}
	status, err := c.post(ctx, t, batchPath, body)
	if err != nil {
		return err
	}
	c.metrics.sent.WithLabelValues(formBatch).Inc()
	c.metrics.hints.Add(float64(l.size()))
	c.handedOver(t, len(l.handovers), status, reason)
	return nil
}

// deliverSingly uses the original's form, one request for each client, one after the other. A blacklisted client is woken:
// that makes the original look at it. Of broadcasts the form knows nothing.
func (c *Client) deliverSingly(t *target, l load) error {
	if l.broadcasts {
		c.metrics.drop(droppedUnsupported, 1)
	}
	c.metrics.uncarried(uncarriedUnsupported, len(l.handovers))
	ids := slices.Concat(l.wake, l.handed, l.blacklisted)
	for i, id := range ids {
		if err := c.postSingly(t, id); err != nil {
			c.metrics.failed.WithLabelValues(failure(err)).Inc()
			c.metrics.drop(droppedFailed, len(ids)-i)
			return err
		}
		c.metrics.sent.WithLabelValues(formSingle).Inc()
		c.metrics.hints.Inc()
	}
	return nil
}

func (c *Client) postSingly(t *target, id identity.ClientID) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout)
	defer cancel()
	_, err := c.post(ctx, t, singlePath+id.String(), nil)
	return err
}

// post makes one request and returns the status with which it was accepted.
func (c *Client) post(ctx context.Context, t *target, path string, body []byte) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.address+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/x-protobuf")
	}
	if c.cfg.Secret != "" {
		request.Header.Set("Authorization", "Bearer "+c.cfg.Secret)
	}
	started := time.Now()
	status, err = c.exchange(ctx, t, request)
	c.metrics.latency.Observe(time.Since(started).Seconds())
	if err != nil {
		return 0, fmt.Errorf("notify %s: %w", t.address, err)
	}
	if status/100 != 2 {
		return 0, fmt.Errorf("notify %s: %w", t.address, statusError(status))
	}
	return status, nil
}

// failure names the reason of a failed request.
func failure(err error) string {
	var status statusError
	var network net.Error
	switch {
	case errors.As(err, &status) && status == http.StatusUnauthorized:
		return failedUnauthorized
	case errors.As(err, &status):
		return failedStatus
	case errors.As(err, &network) && network.Timeout():
		return failedTimeout
	default:
		return failedTransport
	}
}

func rawIDs(lists ...[]identity.ClientID) [][]byte {
	var raw [][]byte
	for _, ids := range lists {
		raw = slices.Grow(raw, len(ids))
		for i := range ids {
			raw = append(raw, ids[i][:])
		}
	}
	return raw
}
