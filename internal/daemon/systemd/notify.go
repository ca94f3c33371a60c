// Package systemd is what a daemon and the service manager say to each other: readiness, state, watchdog, and sockets that
// were opened before the daemon started. Without systemd everything here does nothing or, for sockets, binds.
package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells that the daemon serves. The status is one line for "systemctl status", and may be empty.
func Ready(status string) error { return notify(daemon.SdNotifyReady, status) }

// Stopping tells that the daemon is about to end.
func Stopping(status string) error { return notify(daemon.SdNotifyStopping, status) }

// Status replaces the status line.
func Status(status string) error { return notify("", status) }

func notify(state, status string) error {
	lines := make([]string, 0, 2)
	if state != "" {
		lines = append(lines, state)
	}
	if status != "" {
		lines = append(lines, "STATUS="+strings.ReplaceAll(status, "\n", " "))
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}

// Watchdog tells systemd twice in each watchdog period that the daemon lives, as long as healthy returns nil, and returns
// when the context is done. When healthy keeps failing systemd restarts the daemon, so it must judge the process alone and
// not what the process depends on. It returns at once when systemd does not watch.
func Watchdog(ctx context.Context, healthy func(context.Context) error) error {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading the watchdog period: %w", err)
	}
	if period == 0 {
		return nil
	}
	ticker := time.NewTicker(period / 2)
	defer ticker.Stop()
	for {
		if healthy(ctx) == nil {
			if err := notify(daemon.SdNotifyWatchdog, ""); err != nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
