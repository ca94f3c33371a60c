package admin

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// call is what the server remembers of a call under way. It is in the context of the call, from its header to its end.
type call struct {
	probe bool // lets itself in at any load, and is not counted

	bytes    atomic.Int64
	patience *time.Timer // fires when the caller has kept the call waiting for too long, and ends it
	stall    time.Duration

	leaveBulk func() // owned by the call's goroutine; nil unless it is a bulk call
}

// callKey is where a context has its call.
type callKey struct{}

// newCall puts a call into the context of a stream whose request is still to come. The context ends, and whatever the call
// does on the network with it, when the caller is too slow.
func newCall(ctx context.Context, stall time.Duration, stalled func()) (context.Context, *call) {
	ctx, end := context.WithCancel(ctx) // of the stream's context, which ends with the stream
	c := &call{stall: stall}
	c.patience = time.AfterFunc(stall, func() {
		if ctx.Err() == nil {
			stalled()
		}
		end()
	})
	return context.WithValue(ctx, callKey{}, c), c
}

// callOf returns nil for a context that is not of a call from the network.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// wait begins a time in which the caller has to do something; served ends it. A call reads and writes by turns.
func (c *call) wait() {
	if c != nil {
		c.patience.Reset(c.stall)
	}
}

func (c *call) served() {
	if c != nil {
		c.patience.Stop()
	}
}

// ended is called once, after everything else.
func (c *call) ended() {
	c.patience.Stop()
	if c.leaveBulk != nil {
		c.leaveBulk()
	}
}

// callStream is a stream whose caller has to read, and to write, within a time; its context may end earlier, too.
type callStream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

func (s *callStream) Context() context.Context { return s.ctx }

func (s *callStream) SendMsg(m any) error {
	s.call.wait()
	defer s.call.served()
	return s.ServerStream.SendMsg(m)
}

func (s *callStream) RecvMsg(m any) error {
	s.call.wait()
	defer s.call.served()
	return s.ServerStream.RecvMsg(m)
}
