package service

import "time"

// Timing lets tests wait less.
type Timing struct{ Respawn, StopStep, StartupWait, Recheck, Channel time.Duration }

func (t Timing) timing() timing {
	out := protocolTiming
	for _, p := range []struct {
		to   *time.Duration
		from time.Duration
	}{
		{&out.respawn, t.Respawn}, {&out.stopStep, t.StopStep}, {&out.startupWait, t.StartupWait},
		{&out.recheck, t.Recheck}, {&out.channel, t.Channel},
	} {
		if p.from != 0 {
			*p.to = p.from
		}
	}
	return out
}

// NewDaemonWith is NewDaemon with other intervals.
func NewDaemonWith(spec Spec, t Timing) (Service, error) { return newDaemon(spec, t.timing(), false) }

// NewAttachedDaemonWith is NewAttachedDaemon with other intervals.
func NewAttachedDaemonWith(spec Spec, t Timing) (Service, error) {
	return newDaemon(spec, t.timing(), true)
}

// NewSocketWith is NewSocket with other intervals.
func NewSocketWith(spec Spec, t Timing) (Service, error) { return newSocket(spec, t.timing()) }

// Bounds of what one connection may have unacknowledged.
const MaxUnacknowledged = maxUnacknowledged

// Parts that are tested by themselves.
var (
	ReadDaemonSettings = readDaemonSettings
	BelongsTo          = belongsTo
	NewPipeName        = newPipeName
)

// HeartbeatsOf returns the grace and the kill period.
func HeartbeatsOf(s daemonSettings) [2]time.Duration { return [2]time.Duration{s.grace, s.killPeriod} }
