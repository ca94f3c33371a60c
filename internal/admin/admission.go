package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang/glog"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/tap"
)

const (
	// maxCalls bounds the calls under way. Past it callers get RESOURCE_EXHAUSTED with a time to come back.
	maxCalls = 4096
	// maxCallBytes bounds the requests of the calls under way, serialized. New calls are refused past it; those that are
	// being read at that moment come on top.
	maxCallBytes = 512 << 20
	// maxConnections bounds the connections. Past it they wait in the accept queue.
	maxConnections = 4096
)

// Let in at any load: by these calls balancers and backends watch this daemon.
const (
	healthPrefix    = "/grpc.health.v1.Health/"
	keepAliveMethod = "/fleetspeak.server.Admin/KeepAlive"
)

// limited bounds the connections of a listener.
func limited(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

// admission decides on a call when its header has arrived, before any of its message is read. It counts the calls under
// way as the stats handler of the gRPC server, which hears of the end of every call that began.
type admission struct {
	secret  *[sha256.Size]byte // of the token asked for; nil when none is
	metrics *metrics
	log     *rate.Limiter // of lines about refused callers

	calls atomic.Int64
	bytes atomic.Int64
}

// call is what admission remembers of a call under way.
type call struct{ bytes atomic.Int64 }

// callKey is where a context has its call.
type callKey struct{}

func newAdmission(token string, metrics *metrics) *admission {
	a := &admission{metrics: metrics, log: rate.NewLimiter(rate.Every(time.Second), 5)}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		a.secret = &sum
	}
	return a
}

// admit is the tap of the gRPC server.
func (a *admission) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	if strings.HasPrefix(info.FullMethodName, healthPrefix) {
		return ctx, nil
	}
	if !a.authorized(info.Header) {
		return nil, a.refuse(ctx, info, refusedToken, errToken)
	}
	if info.FullMethodName != keepAliveMethod && (a.calls.Load() >= maxCalls || a.bytes.Load() >= maxCallBytes) {
		return nil, a.refuse(ctx, info, refusedBusy, errBusy)
	}
	return ctx, nil
}

func (a *admission) refuse(ctx context.Context, info *tap.Info, reason string, err error) error {
	a.metrics.refused.WithLabelValues(reason).Inc()
	if a.log.Allow() {
		glog.Warningf("refused: method=%q peer=%s: %v", cut(info.FullMethodName), peerName(ctx), err)
	}
	return statusError(ctx, err)
}

// authorized compares digests, so that neither the content nor the length of the token shows in the time it takes.
func (a *admission) authorized(header metadata.MD) bool {
	if a.secret == nil {
		return true
	}
	values := header.Get("authorization")
	if len(values) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], a.secret[:]) == 1
}

// TagRPC implements stats.Handler.
func (a *admission) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, callKey{}, &call{})
}

// HandleRPC implements stats.Handler.
func (a *admission) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.Begin:
		a.metrics.underWay.Set(float64(a.calls.Add(1)))
	case *stats.InPayload:
		c.bytes.Add(int64(event.Length))
		a.bytes.Add(int64(event.Length))
	case *stats.End:
		a.bytes.Add(-c.bytes.Load())
		a.metrics.underWay.Set(float64(a.calls.Add(-1)))
	}
}

// TagConn implements stats.Handler.
func (a *admission) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (a *admission) HandleConn(_ context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		a.metrics.connections.Inc()
	case *stats.ConnEnd:
		a.metrics.connections.Dec()
	}
}

// peerName is the address of a caller, and the name in its certificate when it presented one.
func peerName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "unknown"
	}
	name := p.Addr.String()
	if p.Addr.Network() == "unix" {
		name = "unix"
	}
	if subject := certificateName(p.AuthInfo); subject != "" {
		name += "(" + subject + ")"
	}
	return name
}
