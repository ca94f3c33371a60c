package service

import (
	"context"
	"time"

	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// suspendSlack is by how much a wait may be late before the machine is taken to have slept.
const suspendSlack = 10 * time.Second

// watchHeartbeats kills the process when no message of it came for longer than the kill period, but not before the grace
// period is over. It waits until there can be something to see rather than look all the time. While the agent does not read
// from the process it does not count as silent.
func (s *supervised) watchHeartbeats(ctx context.Context) {
	s.heard.touch()
	for wait := max(s.settings.grace, s.settings.killPeriod); s.rest(ctx, wait); {
		wait = s.settings.killPeriod - s.heard.silence()
		if wait > 0 {
			continue
		}
		if !s.rest(ctx, s.timing.recheck) {
			return
		}
		if s.heard.silence() > s.settings.killPeriod {
			s.kill(ctx, monitoringpb.KillNotification_HEARTBEAT_FAILURE)
		}
		wait = s.timing.recheck // until the kill has had its effect
	}
}

// rest waits until ctx ends, and then returns false. When the machine slept meanwhile, so did the process: its silence
// begins anew.
func (s *supervised) rest(ctx context.Context, d time.Duration) bool {
	due := time.Now().Round(0).Add(d) // by the wall clock, which does not stand still
	if !pause(ctx.Done(), max(d, time.Millisecond)) {
		return false
	}
	if time.Now().Round(0).Sub(due) > suspendSlack {
		s.heard.touch()
	}
	return true
}

// watchActivity closes idle when there was no message in either direction for the configured time. The clock starts with
// the process (G-14).
func (c *child) watchActivity(ctx context.Context) {
	if c.settings.inactivity == 0 {
		return
	}
	for {
		left := c.settings.inactivity - c.activity.silence()
		if left <= 0 {
			close(c.idle)
			return
		}
		if !pause(ctx.Done(), left) {
			return
		}
	}
}
