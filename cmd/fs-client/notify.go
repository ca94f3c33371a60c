package main

import (
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/golang/glog"
)

// notify tells systemd about the state of the process, if systemd wants to know.
func notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		glog.Warningf("systemd is not told %q: %v", state, err)
	}
}

// notifyReloading announces a reload, which READY=1 ends.
func notifyReloading() {
	notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}
