package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang/glog"
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
	// maxWatches bounds the watches of health, which last; their callers need no token. Balancers have one each.
	maxWatches = 1024
	// maxProbesOfOne bounds the probes, watches among them, that are under way on one connection.
	maxProbesOfOne = 64
)

// Probes are calls by which balancers and backends watch this daemon. They are let in at any load and take nobody's place:
// they have bounds of their own.
const (
	healthPrefix    = "/grpc.health.v1.Health/"
	watchMethod     = healthPrefix + "Watch"
	keepAliveMethod = "/fleetspeak.server.Admin/KeepAlive"
)

// admission decides on a call when its header has arrived, before any of its message is read. It counts the calls under
// way as the stats handler of the gRPC server, which hears of the end of every call that began.
type admission struct {
	secret  *[sha256.Size]byte // of the token asked for; nil when none is
	metrics *metrics
	log     *rate.Limiter // of lines about refused callers

	stall time.Duration

	calls   atomic.Int64 // under way, probes aside
	bytes   atomic.Int64 // of their requests
	watches atomic.Int64
}

// connection is what admission remembers of one.
type connection struct{ probes atomic.Int64 }

// connectionKey is where a context has its connection.
type connectionKey struct{}

func newAdmission(token string, stall time.Duration, metrics *metrics) *admission {
	a := &admission{metrics: metrics, stall: stall, log: rate.NewLimiter(rate.Every(time.Second), 5)}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		a.secret = &sum
	}
	return a
}

// admit is the tap of the gRPC server.
func (a *admission) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	method := info.FullMethodName
	health := strings.HasPrefix(method, healthPrefix)
	probe := health || method == keepAliveMethod
	switch {
	case !health && !a.authorized(info.Header):
		return nil, a.refuse(ctx, info, refusedToken, errToken)
	case probe && !a.enterProbe(ctx, method):
		return nil, a.refuse(ctx, info, refusedBusy, errBusy)
	case !probe && (a.calls.Load() >= maxCalls || a.bytes.Load() >= maxCallBytes):
		return nil, a.refuse(ctx, info, refusedBusy, errBusy)
	}
	ctx, c := newCall(ctx, a.stall, a.metrics.stalled.Inc)
	c.probe = probe
	return ctx, nil
}

// enterProbe counts a probe until the end of its stream, with which its context ends. Streams of one connection come here
// one after another.
func (a *admission) enterProbe(ctx context.Context, method string) bool {
	counts := make([]*atomic.Int64, 0, 2)
	enter := func(n *atomic.Int64, most int64) bool {
		counts = append(counts, n)
		return n.Add(1) <= most
	}
	leave := func() {
		for _, n := range counts {
			n.Add(-1)
		}
	}
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok && !enter(&c.probes, maxProbesOfOne) ||
		method == watchMethod && !enter(&a.watches, maxWatches) {
		leave()
		return false
	}
	context.AfterFunc(ctx, leave)
	return true
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

// TagRPC implements stats.Handler. The call is in the context already.
func (a *admission) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (a *admission) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c := callOf(ctx)
	if c == nil {
		return
	}
	switch event := event.(type) {
	case *stats.Begin:
		a.count(c, 1, 0)
	case *stats.InPayload:
		c.served()
		c.bytes.Add(int64(event.Length))
		a.count(c, 0, int64(event.Length))
	case *stats.End:
		c.ended()
		a.count(c, -1, -c.bytes.Load())
	}
}

// count counts calls under way, and the bytes of their requests. Probes do not count.
func (a *admission) count(c *call, calls, bytes int64) {
	if c.probe {
		return
	}
	a.bytes.Add(bytes)
	a.metrics.underWay.Set(float64(a.calls.Add(calls)))
}

// TagConn implements stats.Handler.
func (a *admission) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

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
