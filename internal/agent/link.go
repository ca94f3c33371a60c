package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang/glog"
)

// LinkConfig says how the agent keeps in touch with its servers.
type LinkConfig struct {
	DialConfig
	// Version is that of the agent.
	Version string
	// Servers are host:port addresses.
	Servers []string
	// Streaming holds a session; otherwise the agent polls.
	Streaming bool
	// Deflate compresses what is sent.
	Deflate bool
	// MaxPollDelay is the longest wait between two polls, before jitter. 0: 5 min.
	MaxPollDelay time.Duration
	// MaxBufferDelay is the longest wait of a message for a poll, before jitter. 0: 5 s.
	MaxBufferDelay time.Duration
	// MaxFailureDelay is the longest wait after no server could be reached. 0: 5 min.
	MaxFailureDelay time.Duration
	// LonelyLimit is how long the agent goes on without a contact. 0: a week.
	LonelyLimit time.Duration
}

func (c LinkConfig) withDefaults() LinkConfig {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&c.MaxPollDelay, 5*time.Minute)
	set(&c.MaxBufferDelay, 5*time.Second)
	set(&c.MaxFailureDelay, 5*time.Minute)
	set(&c.LonelyLimit, 7*24*time.Hour)
	return c
}

// ErrLonely says that no server answered for longer than LinkConfig.LonelyLimit.
var ErrLonely = errors.New("no contact with a server for too long")

// link is what both ways of communicating share. Its run is the session loop or the poll loop.
type link struct {
	cfg    LinkConfig
	labels []string
	state  *state
	outbox *outbox
	router *router

	transports *transports
	watchdog   *watchdog
	// wake interrupts a wait between attempts; leave is closed when the agent wants to end its contacts in order.
	wake  chan struct{}
	leave chan struct{}

	// Its order is run's.
	endpoints *endpoints

	mu         sync.Mutex
	status     LinkStatus
	live       *session // established
	batchBytes int      // grows and shrinks with what the line carries
}

// LinkStatus says how the agent stands with its servers.
type LinkStatus struct {
	Server      string    `json:"server"` // of the session; empty when there is none, or when the agent polls
	Since       time.Time `json:"since,omitzero"`
	LastContact time.Time `json:"last_contact,omitzero"` // end of the last good session, or last good poll
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

func newLink(cfg LinkConfig, labels []string, s *state, o *outbox, r *router, w *watchdog) *link {
	cfg = cfg.withDefaults()
	return &link{
		cfg:        cfg,
		labels:     labels,
		state:      s,
		outbox:     o,
		router:     r,
		transports: &transports{dial: cfg.DialConfig, servers: cfg.Servers, revoked: s.isRevoked},
		watchdog:   w,
		wake:       make(chan struct{}, 1),
		leave:      make(chan struct{}),
		endpoints:  newEndpoints(cfg.Servers),
		batchBytes: maxBatchBytes,
	}
}

// run communicates until ctx ends or leave is closed, or until it has been lonely for too long.
func (l *link) run(ctx context.Context) error {
	defer l.transports.close()
	if l.cfg.Streaming {
		return l.runSessions(ctx)
	}
	return l.runPolls(ctx)
}

// interrupt ends a wait between attempts.
func (l *link) interrupt() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) leaving() bool {
	select {
	case <-l.leave:
		return true
	default:
		return false
	}
}

// noteFailure keeps an error for the status report and logs it.
func (l *link) noteFailure(p *endpoint, err error) {
	glog.Warningf("contact with server %s: %v", p.address, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.LastError, l.status.LastErrorAt = fmt.Sprintf("%s: %v", p.address, err), time.Now()
}

// setLive notes that a session is up, or with nil that it is over.
func (l *link) setLive(s *session, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = s
	if s == nil {
		l.status.Server, l.status.LastContact = "", time.Now()
		return
	}
	l.status.Server, l.status.Since = s.to.address, since
}

// noteContact notes a good poll.
func (l *link) noteContact() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.LastContact = time.Now()
}

func (l *link) currentStatus() LinkStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// transports holds the transport of the current identity.
type transports struct {
	dial    DialConfig
	servers []string // host:port
	revoked func([]byte) bool

	mu      sync.Mutex
	current *http.Transport
	dialer  *serverDialer // of current
	of      *Identity
}

// get returns the transport for an identity. That of the identity before is dropped.
func (t *transports) get(id *Identity) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of != id {
		if t.current != nil {
			t.current.CloseIdleConnections()
		}
		t.current, t.dialer = t.dial.newTransport(id, t.revoked, t.servers)
		t.of = id
	}
	return t.current
}

// learn takes what a server says of its tickets in a response.
func (t *transports) learn(response http.Header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dialer.tickets.Learn(response)
}

func (t *transports) closeIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
}

func (t *transports) close() { t.closeIdle() }

// request makes a request to a server, with the header in which balancers pass the certificate on.
func (l *link) request(ctx context.Context, id *Identity, method, url string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if name := l.cfg.CertificateHeader; name != "" {
		r.Header.Set(name, id.headerValue())
	}
	return r, nil
}

// statusError is an answer other than 200.
type statusError struct {
	code       int
	text       string
	retryAfter time.Duration
}

func (e *statusError) Error() string { return fmt.Sprintf("server answers %d: %s", e.code, e.text) }

// maxErrorBody is what is read of an error's text.
const maxErrorBody = 1024

func newStatusError(r *http.Response) *statusError {
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxErrorBody)) // for people; a part will do
	return &statusError{
		code:       r.StatusCode,
		text:       validText(strings.TrimSpace(string(body)), maxErrorBody),
		retryAfter: retryAfter(r.Header, time.Now()),
	}
}

// content reports whether the server may have refused what was in the request, and not the client or the moment.
func (e *statusError) content() bool {
	return e.code == http.StatusBadRequest || e.code == http.StatusRequestEntityTooLarge ||
		e.code == http.StatusInternalServerError
}

// deflates reports whether bodies for p are compressed.
func (l *link) deflates(p *endpoint) bool { return l.cfg.Deflate && !p.plain }

// tryPlain decides after an error whether the same server is to be tried again at once without compression: servers from
// before compression, and the original's polling handler, refuse it with these codes (G-05).
func (l *link) tryPlain(p *endpoint, err error) bool {
	var status *statusError
	if !l.cfg.Deflate || !errors.As(err, &status) {
		return false
	}
	if status.code != http.StatusUnsupportedMediaType && status.code != http.StatusBadRequest {
		return false
	}
	p.plain = !p.plain // a refusal without compression had another reason
	return p.plain
}

// postpone keeps a server from being tried again before it wants to.
func (l *link) postpone(p *endpoint, err error) {
	var status *statusError
	if errors.As(err, &status) && status.retryAfter > 0 {
		l.endpoints.postpone(p, time.Now().Add(status.retryAfter+jitter(status.retryAfter/10)))
	}
}
