package server

import (
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// How long a record may take to arrive. A peer that stalls holds memory that others need, and one on a slow line must get
// through all the same: so a large record has as long as it goes on, and no longer. What counts are decoded bytes, because
// they are what is held.
const (
	// recordTimeout bounds the first recordStep of a record, and the work that follows a record.
	recordTimeout = 3 * time.Minute
	// recordStep has to come within stepTimeout from then on: a little more than 8 KiB a second.
	recordStep  = 256 << 10
	stepTimeout = 30 * time.Second
	// longestRecord bounds a record in any case, as the original does.
	longestRecord = 20 * time.Minute
)

// pacing sets the deadlines of one record, or of the body of a poll.
type pacing struct {
	began time.Time
	came  int // bytes since the last step
}

// begin returns the first deadline.
func (p *pacing) begin() time.Time {
	*p = pacing{began: time.Now()}
	return p.began.Add(recordTimeout)
}

// took notes decoded bytes. It returns the next deadline when they complete a step.
func (p *pacing) took(n int) (deadline time.Time, step bool) {
	if p.came += n; p.came < recordStep {
		return time.Time{}, false
	}
	p.came = 0
	deadline = time.Now().Add(stepTimeout)
	if last := p.began.Add(longestRecord); last.Before(deadline) {
		deadline = last
	}
	return deadline, true
}

// pace is how much time the reading of a session has.
type pace uint8

const (
	paceOpening pace = iota // a deadline runs for the first byte
	paceRecord              // a deadline runs for the record that has begun
	paceIdle                // none runs: the next record may take as long as it likes to begin
)

// pacedReader gives a record its deadlines from its first byte on, and none to the silence between records: an idle session
// has no timer. It belongs to the reading goroutine.
//
// A deadline is a timer, so the stream is told of it only before a read that may wait. Most records have arrived as a whole
// when they are begun to be read, and end without.
type pacedReader struct {
	stream   stream
	pace     pace
	pacing   pacing
	deadline time.Time // that reads have; zero: none
	told     bool      // the stream knows of it
	running  bool      // the stream has a deadline, this one or one before it
}

// Read reads from the stream. Whoever waits for a record asks for one byte: the first of its length, or of a compressed
// piece. A larger read while idle is for a piece that has begun, and is in a decompressor in part.
func (p *pacedReader) Read(b []byte) (int, error) {
	if p.pace == paceIdle && len(b) > 1 {
		p.begin()
	}
	if !p.stream.ready() {
		if err := p.tell(); err != nil {
			return 0, err
		}
	}
	n, err := p.stream.Read(b)
	if p.pace != paceRecord && n > 0 {
		p.begin()
	}
	return n, err
}

func (p *pacedReader) begin() {
	p.pace = paceRecord
	p.expect(p.pacing.begin())
}

// expect gives the reads that follow a deadline.
func (p *pacedReader) expect(deadline time.Time) {
	p.deadline = deadline
	p.told = deadline.IsZero() && !p.running
}

// tell tells the stream of the deadline.
func (p *pacedReader) tell() error {
	if p.told {
		return nil
	}
	p.told, p.running = true, !p.deadline.IsZero()
	return p.stream.SetReadDeadline(p.deadline)
}

// rest ends a record. No deadline runs after it.
func (p *pacedReader) rest() error {
	p.pace = paceIdle
	p.expect(time.Time{})
	return p.tell()
}

// decoded notes what came out of the stream. A record may begin without a read from below: when its first bytes were
// compressed together with the record before it.
func (p *pacedReader) decoded(n int) {
	if p.pace == paceIdle {
		p.begin()
	}
	if deadline, step := p.pacing.took(n); step {
		p.expect(deadline)
	}
}

// pacedBody is what a pacedReader's bytes decode to.
type pacedBody struct {
	io.ReadCloser
	below *pacedReader
}

func (b pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.below.decoded(n)
	}
	return n, err
}

// pacedPoll is the decoded body of a poll, which has the same deadlines. A transport without deadlines has the context of
// the request.
type pacedPoll struct {
	io.Reader
	pacing          pacing
	setReadDeadline func(time.Time) error
}

func (b *pacedPoll) begin() { _ = b.setReadDeadline(b.pacing.begin()) }

func (b *pacedPoll) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if deadline, step := b.pacing.took(n); step {
		_ = b.setReadDeadline(deadline)
	}
	return n, err
}

// memoryFor is what the records of a peer may take. It is the share of an address where the address is the peer's own, since
// anybody can make keys, and that of the client behind a front end that ends TLS, where all clients share addresses.
func (s *Server) memoryFor(p peer) wire.Memory {
	var holder wire.Holder
	if address := clientAddress(p.address); ownAddresses(s.cfg.Certificates) && address.IsValid() {
		holder = address.As16()
	} else {
		copy(holder[:], p.ID.Bytes())
	}
	return s.budget.Share(holder)
}
