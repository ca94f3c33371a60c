package services

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/golang/glog"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// tripAfter failures in a row open a circuit; so does a majority of failures among at least tripSample calls within
	// circuitWindow.
	tripAfter     = 5
	tripSample    = 20
	circuitWindow = 2 * time.Minute
	circuitBucket = 10 * time.Second
)

// unit is one service with what bounds its use.
type unit struct {
	name    string
	service Service
	// reports is the service when it wants to know the sender: the system service, whose completed messages leave no trace
	// in the store (G-21).
	reports *system
	// inline services neither block nor fail for now: they run in the goroutine of the caller, without slots.
	inline bool
	// slots bounds the Process calls under way. First come, first served.
	slots *semaphore.Weighted
	// circuit is nil for services within this process.
	circuit *gobreaker.TwoStepCircuitBreaker[struct{}]
	// patience is how long a service that answered something counts as alive, whatever runs out of time meanwhile.
	patience time.Duration
	// maxAttempts ends the retries of a message; 0 never does.
	maxAttempts int

	inflight atomic.Int64 // Process calls under way
	claimed  atomic.Int64 // messages of the backlog that this server holds
	answered atomic.Int64 // when the service last answered, in nanoseconds of the epoch; 0 when it never did
	// hurried says that a client's message ran out of time after the last answer and the last try from the backlog. A probe
	// of the circuit with so little time would prove nothing: it is left to the backlog.
	hurried atomic.Bool

	metrics   *metrics
	panicLine rate.Sometimes
}

// verdict is what became of handing a message to a service.
type verdict int

const (
	taken   verdict = iota // the service is responsible
	failed                 // for good
	later                  // failed for now
	refused                // not handed over: circuit open or no slot
	aborted                // whoever wanted it has gone; nothing is known
)

// outcome is a verdict with its reason.
type outcome struct {
	verdict verdict
	err     error // nil when taken
}

func newCircuit(name string, openFor time.Duration) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         name,
		Interval:     circuitWindow,
		BucketPeriod: circuitBucket,
		Timeout:      openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= tripAfter || c.Requests >= tripSample && c.TotalFailures > c.Requests/2
		},
		IsSuccessful: func(err error) bool { return !isUnavailable(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errCallerLeft) || errors.Is(err, errTooSlow) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen || to == gobreaker.StateClosed {
				glog.Warningf("service %q: circuit %s", name, to)
			}
		},
	})
}

// label is the service's name in metrics. An unknown service is a nil unit.
func (u *unit) label() string {
	if u == nil {
		return other
	}
	return u.name
}

// state returns the state of the circuit.
func (u *unit) state() gobreaker.State {
	if u.circuit == nil {
		return gobreaker.StateClosed
	}
	return u.circuit.State()
}

// shut says that a client's message goes to the backlog without a try.
func (u *unit) shut() bool {
	switch u.state() {
	case gobreaker.StateOpen:
		return true
	case gobreaker.StateHalfOpen:
		return u.hurried.Load()
	default:
		return false
	}
}

// hand gives a message to the service. The caller holds a slot, except for an inline service. The context of a service that
// is not inline ends with cause errBudget when the service has had its time.
func (u *unit) hand(ctx context.Context, from sender, m *fspb.Message, first bool) outcome {
	report, err := u.admit()
	if err != nil {
		return outcome{refused, errCircuitOpen}
	}
	m.Result = nil
	m.IsBlocklistedSource = from.blacklisted
	u.inflight.Add(1)
	started := time.Now()
	err = u.process(ctx, from, m)
	took := time.Since(started)
	u.inflight.Add(-1)
	o := judge(ctx, err)
	if report != nil {
		report(u.blame(o.err))
	}
	u.metrics.handed(u.name, m, from, first, o, took)
	return o
}

// admit asks the circuit. The function returned, if any, tells it the outcome.
func (u *unit) admit() (func(error), error) {
	if u.circuit == nil {
		return nil, nil
	}
	return u.circuit.Allow()
}

// blame is what the circuit hears of an outcome. A call that ran out of time says nothing about a service that answers
// others: such a service is slow, or the message is.
func (u *unit) blame(err error) error {
	now := time.Now().UnixNano()
	switch {
	case errors.Is(err, errCallerLeft):
	case !isUnavailable(err):
		u.answered.Store(now)
		u.hurried.Store(false)
	case isTimeout(err) && now-u.answered.Load() < u.patience.Nanoseconds():
		return errTooSlow
	}
	return err
}

// process calls the service. A panic there is the failure of this message alone (G-01).
func (u *unit) process(ctx context.Context, from sender, m *fspb.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = Permanent(errPanic)
			u.metrics.panics.WithLabelValues(u.name).Inc()
			stack := debug.Stack()
			u.panicLine.Do(func() { glog.Errorf("service %q: panic: %s\n%s", u.name, cut(fmt.Sprint(v), 200), stack) })
		}
	}()
	if u.reports != nil {
		return u.reports.process(ctx, from, m)
	}
	return u.service.Process(ctx, m)
}

// judge turns the answer of a service into an outcome.
func judge(ctx context.Context, err error) outcome {
	switch {
	case err == nil:
		return outcome{verdict: taken}
	case IsPermanent(err):
		return outcome{failed, err}
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errBudget):
		return outcome{aborted, errCallerLeft}
	default:
		return outcome{later, err}
	}
}
