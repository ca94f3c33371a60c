package agent

import (
	"errors"
	"net/http"
	"time"
)

// smallestBatch is the least to which batches fall on a slow line, before their last message.
const smallestBatch = 256 << 10

// measure adapts the size of batches to a line that is slow: ten seconds' worth, within bounds.
func (l *link) measure(bytes int, took time.Duration) {
	if bytes < smallestBatch || took <= 0 {
		return
	}
	perTenSeconds := float64(bytes) / took.Seconds() * 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batchBytes = int(min(max(perTenSeconds, smallestBatch), maxBatchBytes))
}

// noteBroken halves the batches when a contact failed over an unacknowledged record, or poll, of so many bytes, and that
// may have been too much for the line. Without this a backlog would never get through a line that needs longer for a whole
// batch than either side waits: only what arrives is measured.
func (l *link) noteBroken(err error, bytes int, underWay time.Duration) {
	if bytes <= smallestBatch || !tooSlow(err) && underWay < sluggish {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batchBytes = min(l.batchBytes, max(bytes/2, smallestBatch))
}

// sluggish is for how long a record was under way when its contact broke if that may have been why. Servers, and balancers
// before them, that lose patience often just close the connection.
const sluggish = time.Minute

// tooSlow reports whether one side ended a contact because it took too long.
func tooSlow(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusRequestTimeout
	}
	return errors.Is(err, errTooSlow) || errors.Is(err, errAckTimeout)
}

// batchLimit is how many bytes the next batch may have.
func (l *link) batchLimit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.batchBytes
}
