package notify

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// bodyTimeout is how long a batch may take to arrive.
const bodyTimeout = 5 * time.Second

// Sink takes what notifications say. Its methods must not block, and are called by many goroutines at once; the hints are
// unverified, so each may cost it no more than a cheap lookup.
type Sink interface {
	// Wake says that messages may wait for these clients.
	Wake(ids []identity.ClientID)
	// BroadcastsChanged says that the set of active broadcasts may have changed.
	BroadcastsChanged()
	// Blacklisted says that these clients may have been blacklisted.
	Blacklisted(ids []identity.ClientID)
	// HandOver gives messages that were committed just now, authentic unlike the hints, each client's in order. A request
	// may come twice, or late: whether a message may still be pushed is for the sink to see. Clients with messages here are
	// not given to Wake.
	HandOver(handovers []*store.Handover)
}

// Handler receives notifications of both forms.
type Handler struct {
	sink    Sink
	secret  *[sha256.Size]byte // of the token asked for; nil when none is
	key     []byte             // opens what is handed over; nil when nothing is
	metrics *handlerMetrics

	// open is held for reading while the sink is called, for writing to close it.
	open   sync.RWMutex
	closed bool // guarded by open
}

// NewHandler makes a Handler that passes hints on to sink.
func NewHandler(sink Sink, cfg Config) *Handler {
	h := &Handler{sink: sink, key: cfg.HandoverKey, metrics: newHandlerMetrics(cfg.Registerer)}
	if cfg.Secret != "" {
		sum := sha256.Sum256([]byte(cfg.Secret))
		h.secret = &sum
	}
	return h
}

// Close returns when no call of the sink is under way, and there will be no more: requests that come later are answered
// with 503 (G-54).
func (h *Handler) Close() {
	h.open.Lock()
	defer h.open.Unlock()
	h.closed = true
}

// ServeHTTP takes one notification.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := h.serve(w, r)
	h.metrics.requests.WithLabelValues(form(r), outcome(status)).Inc()
	switch {
	case err == nil:
		w.WriteHeader(status)
	case status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, err.Error(), status)
	default:
		http.Error(w, err.Error(), status)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if !h.authorized(r) {
		return http.StatusUnauthorized, errors.New("a bearer token is needed")
	}
	if r.URL.Path == batchPath {
		return h.serveBatch(w, r)
	}
	return h.serveSingle(r)
}

// serveSingle answers the original's form with its replies, checked in its order.
func (h *Handler) serveSingle(r *http.Request) (status int, err error) {
	directory, name := path.Split(r.URL.Path)
	if directory != singlePath {
		return http.StatusNotFound, errors.New("not found")
	}
	id, err := identity.ParseClientID(name)
	switch {
	case err != nil:
		return http.StatusBadRequest, err
	case id.IsNil():
		return http.StatusBadRequest, errors.New("a client ID is needed")
	case r.Method != http.MethodPost:
		return http.StatusBadRequest, fmt.Errorf("method %s is not supported", r.Method)
	}
	return h.deliver(http.StatusOK, hints{wake: []identity.ClientID{id}})
}

// serveBatch answers our own form.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, fmt.Errorf("method %s is not supported", r.Method)
	}
	// A transport without deadlines has limits of its own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBatchBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("a batch takes at most %d bytes", maxBatchBytes)
	}
	if err != nil {
		return http.StatusBadRequest, errors.New("the body cannot be read")
	}
	given, sealed, err := decodeBatch(body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	success := http.StatusNoContent
	if len(sealed) > 0 {
		if given.handovers, err = open(h.key, sealed); err != nil {
			h.metrics.unopened.Inc()
			success = http.StatusAccepted // tells the sender to look for another key; the hints count
		}
	}
	return h.deliver(success, given)
}

// hints is a checked notification.
type hints struct {
	wake        []identity.ClientID
	blacklisted []identity.ClientID
	broadcasts  bool
	handovers   []*store.Handover // their clients are in wake, too
}

// decodeBatch checks all hints of a batch before any of them is used, and returns what is sealed beside them.
func decodeBatch(body []byte) (given hints, sealed []byte, err error) {
	var batch notifypb.Batch
	if err := proto.Unmarshal(body, &batch); err != nil {
		return hints{}, nil, errors.New("the body is no farspeak.notify.Batch")
	}
	wake, err := clientIDs("client_ids", batch.ClientIds)
	if err != nil {
		return hints{}, nil, err
	}
	blacklisted, err := clientIDs("blacklisted_client_ids", batch.BlacklistedClientIds)
	if err != nil {
		return hints{}, nil, err
	}
	return hints{wake: wake, blacklisted: blacklisted, broadcasts: batch.BroadcastsChanged}, batch.Sealed, nil
}

func clientIDs(field string, raw [][]byte) ([]identity.ClientID, error) {
	if len(raw) > MaxBatchIDs {
		return nil, fmt.Errorf("%s has %d elements, at most %d are allowed", field, len(raw), MaxBatchIDs)
	}
	ids := make([]identity.ClientID, len(raw))
	for i, b := range raw {
		id, err := identity.ClientIDFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		if id.IsNil() {
			return nil, fmt.Errorf("%s: an empty client ID", field)
		}
		ids[i] = id
	}
	return ids, nil
}

// deliver calls the sink and answers with success, or refuses when the Handler is closed.
func (h *Handler) deliver(success int, given hints) (status int, err error) {
	h.open.RLock()
	defer h.open.RUnlock()
	if h.closed {
		return http.StatusServiceUnavailable, errors.New("stopping")
	}
	h.metrics.hints.Add(float64(len(given.wake) + len(given.blacklisted)))
	if wake := withoutHandovers(given); len(wake) > 0 {
		h.sink.Wake(wake)
	}
	if given.broadcasts {
		h.sink.BroadcastsChanged()
	}
	if len(given.blacklisted) > 0 {
		h.sink.Blacklisted(given.blacklisted)
	}
	if len(given.handovers) > 0 {
		h.metrics.handovers.Add(float64(len(given.handovers)))
		h.sink.HandOver(given.handovers)
	}
	return success, nil
}

// withoutHandovers returns the clients to wake: not those whose messages came along.
func withoutHandovers(given hints) []identity.ClientID {
	if len(given.handovers) == 0 {
		return given.wake
	}
	handed := make(map[identity.ClientID]struct{}, len(given.handovers))
	for _, h := range given.handovers {
		handed[h.Message.ClientID] = struct{}{}
	}
	return slices.DeleteFunc(given.wake, func(id identity.ClientID) bool {
		_, found := handed[id]
		return found
	})
}

// authorized compares digests, so that neither the content nor the length of the secret shows in the time it takes.
func (h *Handler) authorized(r *http.Request) bool {
	if h.secret == nil {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], h.secret[:]) == 1
}
