package server

import (
	"context"
	"net/http"
	"time"

	"github.com/golang/glog"
)

// drainTick is the pace at which sessions are told to leave: a share of them each time, so that they do not all come to
// the other servers in the same instant.
const drainTick = 100 * time.Millisecond

// drain ends the serving in order. Sessions are told to leave over the first half of the drain timeout; they get the other
// half to finish what is in flight; what then remains is cut off. Its agents send again what was not acknowledged.
func (s *Server) drain(web *http.Server) {
	s.admission.Lock()
	s.draining.Store(true)
	s.admission.Unlock()
	glog.Infof("draining %d sessions", s.Sessions())
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		if err := web.Shutdown(ctx); err != nil {
			_ = web.Close()
		}
	}()
	s.tellAll(ctx)
	if !s.waitForSessions(ctx) {
		glog.Warningf("%d sessions did not end in time and are cut off", len(s.expiry.all()))
	}
	s.cutOff()
	<-polled
}

// tellAll sends done_sending to every session, at an even pace.
func (s *Server) tellAll(ctx context.Context) {
	rounds := max(1, int(s.cfg.DrainTimeout/2/drainTick))
	share := len(s.expiry.all())/rounds + 1
	for {
		told := s.expiry.take(share)
		if len(told) == 0 {
			return
		}
		for _, n := range told {
			s.pushes.start(n, n.leave)
		}
		if !pause(ctx, drainTick) {
			return
		}
	}
}

// waitForSessions waits until every session ended; false means that ctx ended first.
func (s *Server) waitForSessions(ctx context.Context) bool {
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// cutOff ends what a drain left, and waits for it.
func (s *Server) cutOff() {
	s.cut()
	for _, n := range s.expiry.all() {
		n.stream.abort()
	}
	s.work.Wait()
}
