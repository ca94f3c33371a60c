package admin

import (
	"context"
	"errors"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/golang/glog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/farspeak/farspeak/internal/batch"
)

// unaryTimeout bounds a call of one request and one answer whose caller set no deadline, or a later one.
const unaryTimeout = 5 * time.Minute

// guard stands around every call: it keeps panics to the call (G-01), gives errors their codes, measures, and writes the
// audit log.
type guard struct {
	metrics *metrics

	// Calls that would never end by themselves, watches of health and reflection, use a context that ends with endless.
	endless context.Context
	cut     context.CancelFunc
}

func newGuard(metrics *metrics) *guard {
	g := &guard{metrics: metrics}
	g.endless, g.cut = context.WithCancel(context.Background())
	return g
}

// cutEndless ends the calls that would hold up a stop.
func (g *guard) cutEndless() { g.cut() }

// unary is the interceptor of calls with one request and one answer.
func (g *guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	started := time.Now()
	if deadline, ok := ctx.Deadline(); !ok || deadline.Sub(started) > unaryTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unaryTimeout)
		defer cancel()
	}
	err = g.run(ctx, info.FullMethod, func() error {
		answer, err = handler(ctx, request)
		return err
	})
	g.observe(ctx, info.FullMethod, request, started, err)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// stream is the interceptor of the others.
func (g *guard) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	started := time.Now()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	if !ours(info.FullMethod) {
		defer context.AfterFunc(g.endless, cancel)()
	}
	stream = &callStream{stream, ctx, callOf(ctx)}
	err := g.run(ctx, info.FullMethod, func() error { return handler(server, stream) })
	g.observe(ctx, info.FullMethod, nil, started, err)
	return err
}

// ours says whether a method is of the services of this package, rather than of those that come with gRPC.
func ours(method string) bool {
	return strings.HasPrefix(method, "/fleetspeak.") || strings.HasPrefix(method, "/farspeak.")
}

// run calls a handler and turns what goes wrong into a status.
func (g *guard) run(ctx context.Context, method string, handler func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = g.panicked(ctx, method, p, debug.Stack())
		}
	}()
	err = handler()
	var batched *batch.PanicError
	if errors.As(err, &batched) {
		return g.panicked(ctx, method, batched.Value, batched.Stack)
	}
	return statusError(ctx, err)
}

// panicked reports a panic to the operator, and to the caller that there was one.
func (g *guard) panicked(ctx context.Context, method string, value any, stack []byte) error {
	g.metrics.panics.Inc()
	glog.Errorf("panic in %s for %s: %v\n%s", method, peerName(ctx), value, stack)
	return statusError(ctx, errPanic)
}

// observe counts a call that ended and writes its line of the audit log.
func (g *guard) observe(ctx context.Context, method string, request any, started time.Time, err error) {
	took := time.Since(started)
	code := status.Code(err)
	name := path.Base(method)
	g.metrics.observe(name, code, took)
	if subject, ok := audited(request); ok {
		glog.Infof("audit: method=%s peer=%s code=%s %s took=%v", name, peerName(ctx), code, subject, took.Round(time.Microsecond))
		return
	}
	if glog.V(2) {
		glog.Infof("method=%s peer=%s code=%s took=%v", name, peerName(ctx), code, took.Round(time.Microsecond))
	}
}
