// Package notify carries hints between daemons: that messages wait for clients, that the active broadcasts changed, that
// clients were blacklisted.
//
// A notification is a hint. Losing every one of them delays delivery by a sweep interval and loses nothing, so nothing
// here is retried, stored or waited for: the sender drops what it cannot deliver at once, and counts it. A wrong or forged
// hint costs its receiver one lookup.
//
// Messages that were committed just now may come with the hints for their clients, so that the receiver need not read
// them. They are sealed under a key that each server tells its peers through the store; what does not open is a hint like
// any other.
//
// Two forms travel over plain HTTP/1.1:
//
//	POST /client/<16 hex digits>   the original's: one client, empty body, 200 with an empty body
//	POST /farspeak/notify          ours: a farspeak.notify.Batch, 204; 202 when it carries what does not open
//
// A server that does not know the second form answers it with 404 or 405, and gets the first for a while.
//
// Client sends, Handler receives. The Client owns one goroutine for each server that it has something for at the moment,
// and Close waits for them. The Handler owns none; it calls its Sink from the goroutine of the request.
package notify

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The paths of the two forms.
const (
	singlePath = "/client/"
	batchPath  = "/farspeak/notify"
)

const (
	// MaxBatchIDs is the largest number of IDs of one kind that a batch may carry. A Batch of that many, of both kinds,
	// takes 160 KiB.
	MaxBatchIDs = 8192
	// maxBatchBytes bounds the body of a batch, 548 KiB: an ID takes 10 bytes, and fields of newer versions find some room.
	maxBatchBytes = 2*MaxBatchIDs*10 + maxSealedBytes + 4096
	// maxSealedBytes is what the messages take that it carries.
	maxSealedBytes = saltSize + maxHandoverBytes + maxHandovers*handoverOverhead + tagSize
	// DefaultTimeout is how long one request may take.
	DefaultTimeout = 2 * time.Second
	// HandoverKeySize is the length in bytes of the key under which messages are handed over to a server.
	HandoverKeySize = 32
)

// Config describes a Client or a Handler.
type Config struct {
	// Secret is asked for by a Handler, and presented by a Client, as bearer token of every request. Empty means none.
	Secret string
	// Timeout bounds one request of a Client, connecting included. Default 2 s.
	Timeout time.Duration
	// Disabled makes a Client that sends nothing.
	Disabled bool
	// Failed, when set, hears of a server that a Client could reach before and now cannot. It must not block.
	Failed func(address string, err error)
	// HandoverKey opens the messages that come to a Handler. Without one of HandoverKeySize bytes it opens nothing, and
	// takes what it is told as hints.
	HandoverKey []byte
	// HandoverKeys tells a Client the key of the server at an address; an empty one says that there is none. Without it the
	// Client hands nothing over.
	HandoverKeys func(ctx context.Context, address string) ([]byte, error)
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}
