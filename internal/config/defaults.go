package config

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// DefaultSQLitePath is the database when the file configures none, so that one command shows the whole system working.
const DefaultSQLitePath = "/var/lib/farspeak/farspeak.db"

// rule is the default of a setting and the range that it has to lie in when it is given.
type rule[T cmp.Ordered] struct{ standard, least, most T }

const (
	day     = 24 * time.Hour
	century = 36525 * day
	kib     = 1 << 10
	mib     = 1 << 20
	gib     = 1 << 30
)

// Settings of the store, for both daemons.
var (
	maxOpenConnections = rule[uint32]{32, 1, 10000}
	retention          = rule[time.Duration]{30 * day, time.Minute, century} // each of the four ages

	deadLetterMaxMessages = rule[uint64]{200_000, 1, math.MaxInt64}
	deadLetterMaxBytes    = rule[uint64]{8 * gib, 1 * mib, math.MaxInt64}
)

// Settings of fs-server.
var (
	streamLifetime     = rule[time.Duration]{10 * time.Minute, time.Second, day}
	longStreamLifetime = rule[time.Duration]{4 * time.Hour, time.Second, day}
	sweepInterval      = rule[time.Duration]{20 * time.Second, 50 * time.Millisecond, time.Hour}
	redeliveryInterval = rule[time.Duration]{15 * time.Minute, 50 * time.Millisecond, 30 * day}
	serviceBudget      = rule[time.Duration]{5 * time.Second, 10 * time.Millisecond, 10 * time.Minute}
	backlogBudget      = rule[time.Duration]{30 * time.Second, 10 * time.Millisecond, time.Hour}
	unservedAfter      = rule[time.Duration]{time.Hour, time.Minute, 30 * day}
	drainTimeout       = rule[time.Duration]{20 * time.Second, 10 * time.Millisecond, time.Hour}
	proxyHeaderTimeout = rule[time.Duration]{5 * time.Second, 10 * time.Millisecond, time.Minute}

	maxSessions          = rule[uint32]{0, 1, 10_000_000} // 0: what the descriptor limit allows, known at the start
	handshakeConcurrency = rule[uint32]{0, 1, 100_000}    // 0: handshakesPerCore for each core

	registrationsPerSecond           = rule[float64]{5000, 0.001, 1e9}
	registrationsPerSecondPerAddress = rule[float64]{2000, 0.001, 1e9}

	recordMemoryBytes  = rule[uint64]{256 * mib, 48 * mib, 1 << 40} // the largest record has to fit twice: a growing buffer is copied
	maxPushBytes       = rule[uint32]{4 * mib, 64 * kib, 64 * mib}
	backlogMaxMessages = rule[uint64]{1_000_000, 1, math.MaxInt64}
	backlogMaxAttempts = rule[uint32]{0, 1, math.MaxInt32} // 0: no end

	broadcastPollTime = rule[time.Duration]{time.Minute, 100 * time.Millisecond, day}
)

// Settings of fs-admin.
var (
	maxMessageBytes     = rule[uint32]{64 * mib, 1 * mib, 1 * gib}
	maxPendingPerClient = rule[uint64]{10_000, 1, math.MaxInt64}
)

// notifierTimeout is for both daemons.
var notifierTimeout = rule[time.Duration]{2 * time.Second, time.Millisecond, time.Minute}

const (
	handshakesPerCore  = 4
	defaultParallelism = 100              // calls at once to one service, as the original
	longestAgentLife   = 12 * time.Minute // after which the original's agents hang up by themselves
	expiryNotice       = 30 * day         // before a certificate's end
	shortSecret        = 16               // bytes; shorter secrets can be guessed
)

// permanentCodes are the codes that say that the message itself is bad.
var permanentCodes = []string{"INVALID_ARGUMENT"}

func defaultHandshakes() int { return handshakesPerCore * runtime.GOMAXPROCS(0) }

// number returns the value, or its default when it is zero, which is the same as absent.
func number[T uint32 | uint64 | float64](r *textpb.Report, field string, v T, rule rule[T]) T {
	if v == 0 {
		return rule.standard
	}
	if !(v >= rule.least && v <= rule.most) { // also refuses NaN
		r.Error(field, "out of range", fmt.Sprintf("write a number from %v to %v, or leave it out for the default", rule.least, rule.most))
		return rule.standard
	}
	return v
}

// duration is number for durations.
func duration(r *textpb.Report, field string, d *durationpb.Duration, rule rule[time.Duration]) time.Duration {
	v := d.AsDuration()
	switch {
	case d == nil, v == 0 && d.IsValid():
		return rule.standard
	case !d.IsValid() || v < 0:
		r.Error(field, "not a positive duration", fmt.Sprintf("write { seconds: N }, or leave it out for %v", rule.standard))
	case v < rule.least || v > rule.most:
		r.Error(field, fmt.Sprintf("%v is out of range", v),
			fmt.Sprintf("write from %v to %v, or leave it out for %v", rule.least, rule.most, rule.standard))
	default:
		return v
	}
	return rule.standard
}
