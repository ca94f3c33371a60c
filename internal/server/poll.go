package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// pollBudget bounds a whole poll, body included.
	pollBudget = 5 * time.Minute
	// maxMessagesPerPush is the largest number of queued messages in one record to a client.
	maxMessagesPerPush = 100
)

// handlePoll serves one poll: POST /message.
func (s *Server) handlePoll(w http.ResponseWriter, r *http.Request) {
	o := s.metrics.observePoll(pollTypePoll)
	reply, err := s.poll(w, r, o)
	if err != nil {
		refused := asRefusal(err)
		o.done(refused.status)
		s.note(refused, r.RemoteAddr)
		refused.answer(w)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(wire.FeaturesHeader, wire.ServerFeatures)
	o.writing(len(reply))
	if _, err := w.Write(reply); err != nil {
		glog.V(1).Infof("reply to the poll of %s: %v", r.RemoteAddr, err)
	}
	o.done(http.StatusOK)
}

// poll does the work of one poll, in the order of the wire protocol's checks, and returns the reply.
func (s *Server) poll(w http.ResponseWriter, r *http.Request, o *pollObservation) ([]byte, error) {
	encoding, err := wire.DecodeEncoding(r.Header)
	if err != nil {
		return nil, encodingRefusal(err)
	}
	switch {
	case s.Draining():
		return nil, notReady(http.StatusInternalServerError)
	case r.Method != http.MethodPost:
		return nil, refuse(http.StatusBadRequest, "method", "%s is not supported here, use POST", r.Method)
	case encoding == wire.EncodingNone && r.ContentLength > wire.MaxClientRecord:
		return nil, refuse(http.StatusBadRequest, "too_large", "the body is larger than %d bytes", wire.MaxClientRecord)
	}
	p, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollBudget)
	defer cancel()
	control := http.NewResponseController(w)
	deadline := time.Now().Add(pollBudget)
	_ = control.SetReadDeadline(deadline)  // a transport without deadlines has ctx
	_ = control.SetWriteDeadline(deadline) // dito

	body, err := s.readPoll(ctx, r.Body, encoding)
	if err != nil {
		return nil, err
	}
	defer body.Release()
	o.read(len(body.Bytes()))
	rec, err := s.decode(body.Bytes())
	if err != nil {
		return nil, err
	}
	return s.exchange(ctx, p, rec)
}

// readPoll reads a whole body, growing with what arrives.
func (s *Server) readPoll(ctx context.Context, body io.Reader, encoding wire.Encoding) (*wire.Record, error) {
	reader, err := wire.NewBody(body, encoding)
	if err != nil {
		return nil, encodingRefusal(err)
	}
	defer reader.Close()
	read, err := wire.ReadAll(ctx, reader, wire.MaxClientRecord, s.budget)
	switch {
	case errors.Is(err, wire.ErrBudget):
		return nil, noMemory()
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "body", "the body cannot be read: %v", err)
	}
	return read, nil
}

// exchange is the part of a poll that touches the store.
func (s *Server) exchange(ctx context.Context, p peer, rec record) ([]byte, error) {
	client, nonce, err := s.recordContact(ctx, p, rec, "")
	if err != nil {
		return nil, err
	}
	from := sender{id: client.ID, labels: client.Labels, blacklisted: client.Blacklisted}
	if err := s.ingest(ctx, from, rec); err != nil {
		return nil, failed("the messages cannot be processed", err)
	}
	messages, err := s.messagesFor(ctx, client, rec)
	if err != nil {
		return nil, failed("the queue cannot be read", err)
	}
	s.metrics.sent(messages)
	return wire.AppendContactData(nil, nonce, encodings(messages)), nil
}

// messagesFor collects what a polling client gets: its rekey request when it is blacklisted, else broadcasts and what is
// due within its tokens. Attempts are recorded before the reply, because the next poll may reach another server.
func (s *Server) messagesFor(ctx context.Context, client *store.Client, rec record) ([]*store.PendingMessage, error) {
	if client.Blacklisted {
		return []*store.PendingMessage{s.rekeyRequest(ctx, client.ID)}, nil
	}
	var tokens wire.Tokens
	tokens.Start(rec.data.AllowedMessages)
	due, err := s.dueNow(ctx, client, &tokens)
	if err != nil {
		return nil, err
	}
	if err := s.handedOut(ctx, due); err != nil {
		return nil, err
	}
	return append(due, s.broadcasts.collect(ctx, client)...), nil
}

// dueNow reads what is due for one client outside a session, up to its tokens and to one record's size.
func (s *Server) dueNow(ctx context.Context, client *store.Client, tokens *wire.Tokens) ([]*store.PendingMessage, error) {
	request, ok := dueRequest(client.ID, tokens)
	if !ok {
		return nil, nil
	}
	found, err := s.cfg.Store.DueMessages(ctx, []store.DueRequest{request})
	if err != nil || found[client.ID] == nil {
		return nil, err
	}
	taken, _ := takeTokens(tokens, found[client.ID].Messages)
	return taken[:fitting(taken, s.cfg.MaxPushBytes)], nil
}
