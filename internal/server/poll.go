package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// pollBudget bounds a poll from the end of its body on.
	pollBudget = 5 * time.Minute
	// maxMessagesPerPush is the largest number of queued messages in one record to a client.
	maxMessagesPerPush = 100
)

// handlePoll serves one poll: POST /message.
func (s *Server) handlePoll(w http.ResponseWriter, r *http.Request) {
	o := s.metrics.observePoll(pollTypePoll)
	reply := &pollReply{server: s}
	defer reply.release()
	err := error(notReady(http.StatusInternalServerError))
	if s.startWork() {
		defer s.work.Done()
		err = s.poll(w, r, o, reply)
	}
	if err != nil {
		refused := asRefusal(err)
		o.done(refused.status)
		s.note(refused, r.RemoteAddr)
		refused.answer(w)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(wire.FeaturesHeader, s.features)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply.body)))
	o.writing(len(reply.body))
	_, err = w.Write(reply.body)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	o.done(http.StatusOK)
	if err != nil {
		glog.V(1).Infof("reply to the poll of %s: %v", r.RemoteAddr, err)
		return
	}
	reply.sent()
}

// poll does the work of one poll, in the order of the wire protocol's checks, and fills the reply.
func (s *Server) poll(w http.ResponseWriter, r *http.Request, o *pollObservation, reply *pollReply) error {
	encoding, err := wire.DecodeEncoding(r.Header)
	if err != nil {
		return encodingRefusal(err)
	}
	switch {
	case r.Method != http.MethodPost:
		return refuse(http.StatusBadRequest, "method", "%s is not supported here, use POST", r.Method)
	case encoding == wire.EncodingNone && r.ContentLength > wire.MaxClientRecord:
		return refuse(http.StatusBadRequest, "too_large", "the body is larger than %d bytes", wire.MaxClientRecord)
	}
	p, err := s.authenticate(r)
	if err != nil {
		return err
	}
	memory := s.memoryFor(p)
	body, err := s.readPoll(w, r, encoding, memory)
	if err != nil {
		return err
	}
	defer body.Release() // its share of the budget stands for the messages, too
	o.read(len(body.Bytes()))
	ctx, cancel := context.WithTimeout(r.Context(), pollBudget)
	defer cancel()
	setDeadlines(w, pollBudget)
	rec, err := s.decodeContact(body.Bytes(), memory)
	if err != nil {
		return err
	}
	defer rec.charge.release()
	return s.exchange(ctx, p, rec, reply)
}

// readPoll reads a whole body, growing with what arrives.
func (s *Server) readPoll(w http.ResponseWriter, r *http.Request, encoding wire.Encoding, memory wire.Memory) (*wire.Record, error) {
	setDeadlines(w, longestRecord)
	paced := &pacedPoll{setReadDeadline: http.NewResponseController(w).SetReadDeadline}
	paced.begin()
	reader, err := wire.NewBody(r.Body, encoding)
	if err != nil {
		return nil, encodingRefusal(err)
	}
	defer reader.Close()
	paced.Reader = reader
	read, err := wire.ReadAll(r.Context(), paced, wire.MaxClientRecord, memory)
	switch {
	case errors.Is(err, wire.ErrBudget):
		return nil, noMemory()
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "body", "the body cannot be read: %v", err)
	}
	return read, nil
}

// exchange is the part of a poll that touches the store.
func (s *Server) exchange(ctx context.Context, p peer, rec record, reply *pollReply) error {
	c, err := s.recordContact(ctx, p, rec, "")
	if err != nil {
		return err
	}
	client := c.client
	from := sender{id: client.ID, labels: client.Labels, blacklisted: client.Blacklisted}
	if err := s.ingest(ctx, from, rec); err != nil {
		return failed("the messages cannot be processed", err)
	}
	reply.nonce = c.nonce
	if err := reply.collect(ctx, client, rec); err != nil {
		return failed("the queue cannot be read", err)
	}
	return nil
}
