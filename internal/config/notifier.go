package config

import (
	"net/netip"
	"time"

	"github.com/farspeak/farspeak/internal/config/netname"
	"github.com/farspeak/farspeak/internal/config/textpb"
)

// Notifications is where fs-server takes hints from other daemons.
type Notifications struct {
	ListenAddress string // host:port; empty: any port that only this machine reaches
	PublicAddress string // host:port for the others; empty: the bound address
}

// Notifier is how a daemon sends hints. They always go by HTTP, since fs-server and fs-admin are processes of their own;
// notification_use_http_notifier, which lets the original choose, is read and changes nothing.
type Notifier struct {
	Disabled bool // send none
	Secret   Secret
	Timeout  time.Duration // of one request
}

func (f *File) notifications(r *textpb.Report) Notifications {
	const public = "notification_public_address"
	n := Notifications{
		ListenAddress: optionalAddress(r, "notification_listen_address", f.pb.GetNotificationListenAddress()),
		PublicAddress: f.pb.GetNotificationPublicAddress(),
	}
	switch {
	case f.pb.GetNotificationListenAddress() == "":
		if n.PublicAddress != "" {
			r.Warn(public, "without effect, since nothing listens", "add notification_listen_address")
		}
		n.PublicAddress = ""
	case n.PublicAddress != "":
		n.PublicAddress = dialAddress(r, public, n.PublicAddress)
	case isWildcard(n.ListenAddress):
		r.Warn(public, "absent, and the listen address alone does not tell other machines where to connect",
			"write host:port of this machine")
	}
	return n
}

func isWildcard(address string) bool {
	host, _, err := netname.Split(address)
	ip, _ := netip.ParseAddr(host)
	return err == nil && (host == "" || ip.IsUnspecified())
}

func (f *File) notifier(r *textpb.Report) Notifier {
	pb := f.settings().GetNotifier()
	n := Notifier{
		Disabled: pb.GetDisabled(),
		Secret:   secretFile(r, "farspeak.notifier.secret_file", pb.GetSecretFile()),
		Timeout:  duration(r, "farspeak.notifier.timeout", pb.GetTimeout(), notifierTimeout),
	}
	warnIfShort(r, "farspeak.notifier.secret_file", n.Secret)
	f.warnIfFloodable(r)
	return n
}

// warnIfFloodable warns of a notification port that asks nobody who they are (G-17).
func (f *File) warnIfFloodable(r *textpb.Report) {
	listen := f.pb.GetNotificationListenAddress()
	_, _, err := netname.Split(listen)
	if err == nil && f.settings().GetNotifier().GetSecretFile() == "" && !isLocal("tcp", listen) {
		r.Warn("notification_listen_address", "whoever reaches this port can make the server search its store",
			"set farspeak.notifier.secret_file on all daemons and let only them reach the port")
	}
}
