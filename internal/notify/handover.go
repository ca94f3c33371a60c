package notify

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Bounds of the messages that are handed over. One that has no room goes as a hint.
const (
	// maxHandovers and maxHandoverBytes bound one request: 1024 messages, and 256 KiB of them with their names. Small ones reach
	// the first; some milliseconds of a busy server's messages have room.
	maxHandovers     = 1024
	maxHandoverBytes = 256 << 10
	// handoverOverhead is what a handover takes in a request besides its bytes: the IDs, three numbers and the framing make
	// less than 100.
	handoverOverhead = 128
	// Two full requests may wait for one server.
	maxHandoversWaiting     = 2 * maxHandovers
	maxHandoverBytesWaiting = 2 * maxHandoverBytes
)

const (
	// keyAgain is the least time between two questions for the key of one server.
	keyAgain = time.Second
	// keyless is how long a server without a key, or whose key could not be asked for, gets hints only.
	keyless = 10 * time.Second
)

// HandOver tells the server at address that these messages, committed just now, wait for their clients, as Notify does, and
// carries them there if it can. Those of one client are given in their order, and stay in it; they may not be changed any more.
func (c *Client) HandOver(address string, handovers ...*store.Handover) {
	if len(handovers) == 0 {
		return
	}
	c.hint(address, len(handovers), func(t *target) {
		for _, h := range handovers {
			c.carry(t, h)
		}
	})
}

// carry adds one message to a target, or a hint in its place. The caller holds mu.
func (c *Client) carry(t *target, h *store.Handover) {
	reason := ""
	switch {
	case c.cfg.HandoverKeys == nil:
		reason = uncarriedNoKey
	case fit(h) != nil:
		reason = uncarriedUnfit
	case !t.handovers.put(h):
		reason = uncarriedNoRoom
	default:
		return
	}
	c.metrics.uncarried(reason, 1)
	c.note(t, h.Message.ClientID, hintWake)
}

// handoverQueue is what waits to be handed over to one server, in order.
type handoverQueue struct {
	waiting []*store.Handover
	bytes   int
}

// put says whether there was room.
func (q *handoverQueue) put(h *store.Handover) bool {
	size := handoverSize(h)
	if len(q.waiting) >= maxHandoversWaiting || q.bytes+size > maxHandoverBytesWaiting {
		return false
	}
	q.waiting = append(q.waiting, h)
	q.bytes += size
	return true
}

// take removes what one request has room for.
func (q *handoverQueue) take() []*store.Handover {
	n, size := 0, 0
	for n < min(len(q.waiting), maxHandovers) {
		next := handoverSize(q.waiting[n])
		if size+next > maxHandoverBytes {
			break
		}
		size += next
		n++
	}
	taken := q.waiting[:n]
	q.waiting = append([]*store.Handover(nil), q.waiting[n:]...) // nothing holds on to what is taken
	q.bytes -= size
	return taken
}

// clientsOf returns the clients of some messages, each once.
func clientsOf(handovers []*store.Handover) []identity.ClientID {
	ids := make([]identity.ClientID, len(handovers))
	for i, h := range handovers {
		ids[i] = h.Message.ClientID
	}
	slices.SortFunc(ids, func(a, b identity.ClientID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// seal returns messages as the server of a target can open them, or the reason why they are not carried.
func (c *Client) seal(ctx context.Context, t *target, handovers []*store.Handover) (sealed []byte, reason string) {
	if len(handovers) == 0 {
		return nil, ""
	}
	key := c.handoverKey(ctx, t)
	if key == nil {
		return nil, uncarriedNoKey
	}
	sealed, err := seal(key, handovers)
	if err != nil {
		return nil, uncarriedUnfit // a name that is not UTF-8
	}
	return sealed, ""
}

// handoverKey returns the key of a target, or nil. It is asked for once, and again when the server could not use it. The
// question may take half of the time of the request, so that hints are on time when the store is not.
func (c *Client) handoverKey(ctx context.Context, t *target) []byte {
	asked := time.Now()
	if t.key != nil || asked.Before(t.askKeyAt) {
		return t.key
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout/2)
	defer cancel()
	key, err := c.cfg.HandoverKeys(ctx, t.address)
	if err != nil || len(key) != HandoverKeySize {
		t.askKeyAt = time.Now().Add(keyless)
		return nil
	}
	t.key, t.askKeyAt = key, asked.Add(keyAgain)
	return key
}

// handedOver notes what became of messages whose request was accepted with status.
func (c *Client) handedOver(t *target, count, status int, reason string) {
	switch {
	case count == 0:
	case reason != "":
		c.metrics.uncarried(reason, count)
	case status == http.StatusAccepted: // the server was started anew, most likely
		t.key = nil
		c.metrics.uncarried(uncarriedRefused, count)
	default:
		c.metrics.handedOver.Add(float64(count))
	}
}
