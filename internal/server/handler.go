package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/golang/glog"
)

// routes are the three endpoints of the wire protocol.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/message", s.handlePoll)
	if !s.cfg.DisableStreaming {
		mux.HandleFunc("/streaming-message", s.handleStream)
	}
	mux.HandleFunc("/files/", s.handleFile)
	return s.recovered(timed(mux))
}

// requestTimeout bounds a request whose handler sets no deadlines of its own: an unknown path, a refusal before the body
// was read. The library reads what is left of such a body, for as long as the peer likes.
const requestTimeout = 30 * time.Second

func timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setDeadlines(w, requestTimeout)
		next.ServeHTTP(w, r)
	})
}

// setDeadlines bounds what is left of a request. A transport without deadlines has the context of the request.
func setDeadlines(w http.ResponseWriter, timeout time.Duration) {
	control := http.NewResponseController(w)
	deadline := time.Now().Add(timeout)
	_ = control.SetReadDeadline(deadline)
	_ = control.SetWriteDeadline(deadline)
}

// recovered keeps a panic to the request that caused it (G-01).
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				s.metrics.panics.Inc()
				glog.Errorf("panic while serving %s to %s: %v\n%s", r.URL.Path, r.RemoteAddr, p, debug.Stack())
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// refusal is a contact that is not served: what the peer is told, and the reason under which it is counted.
type refusal struct {
	status     int
	text       string
	reason     string // label of the metric
	retryAfter time.Duration
	cause      error // for the log only
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("%s: %v", r.text, r.cause)
	}
	return r.text
}

func (r *refusal) Unwrap() error { return r.cause }

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, text: fmt.Sprintf(format, args...)}
}

// failed is an error on our side: the peer is told that its contact failed, the log why.
func failed(operation string, cause error) *refusal {
	return &refusal{
		status: http.StatusInternalServerError,
		reason: "internal",
		text:   "error processing contact: " + operation,
		cause:  cause,
	}
}

// notReady is the answer of a server that is on its way out.
func notReady(status int) *refusal {
	r := refuse(status, "not_ready", "Server not ready.")
	r.retryAfter = time.Second
	return r
}

// noMemory is the answer while the budget for records that are being read is used up.
func noMemory() *refusal {
	r := refuse(http.StatusServiceUnavailable, "memory", "too many records are being read, try again later")
	r.retryAfter = registrationRetry
	return r
}

// asRefusal turns any error into what the peer is told.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return failed("internal error", err)
}

// note counts a refusal and logs those that an operator has to act on.
func (s *Server) note(r *refusal, address string) {
	s.metrics.refused.WithLabelValues(r.reason).Inc()
	if r.status >= http.StatusInternalServerError && r.cause != nil {
		s.metrics.complain("contact of %s failed: %v", address, r)
		return
	}
	glog.V(1).Infof("contact of %s refused: %v", address, r)
}

func (r *refusal) retrySeconds() int { return max(1, int(r.retryAfter/time.Second)) }

// answer sends a refusal as an HTTP response.
func (r *refusal) answer(w http.ResponseWriter) {
	setDeadlines(w, requestTimeout)
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(r.retrySeconds()))
	}
	http.Error(w, r.text, r.status)
}
