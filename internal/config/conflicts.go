package config

import (
	"fmt"

	"github.com/farspeak/farspeak/internal/config/netname"
	"github.com/farspeak/farspeak/internal/config/textpb"
)

// conflicts looks at the parts together: two listeners of one file on one port, and parts that cannot reach each other.
func (f *File) conflicts(r *textpb.Report) {
	own := f.settings().GetAdmin()
	taken := map[string]string{}
	for _, l := range []struct{ field, address string }{
		{"https_config.listen_address", f.pb.GetHttpsConfig().GetListenAddress()},
		{"admin_config.listen_address", f.pb.GetAdminConfig().GetListenAddress()},
		{"notification_listen_address", f.pb.GetNotificationListenAddress()},
		{"stats_config.address", f.pb.GetStatsConfig().GetAddress()},
		{"health_check_config.listen_address", f.pb.GetHealthCheckConfig().GetListenAddress()},
		{"farspeak.admin.stats_address", own.GetStatsAddress()},
		{"farspeak.admin.health_check_address", own.GetHealthCheckAddress()},
	} {
		_, port, err := netname.Split(l.address)
		if err != nil || port == 0 {
			continue // absent, complained of elsewhere, or any free port
		}
		if other, ok := taken[l.address]; ok {
			r.Error(l.field, fmt.Sprintf("%q is also the address of %s", l.address, other), "choose another port")
			continue
		}
		taken[l.address] = l.field
	}
	f.warnDeaf(r)
}

// warnDeaf warns when daemons on other machines have no way to reach this server: a shared database means that there are
// some.
func (f *File) warnDeaf(r *textpb.Report) {
	shared := f.pb.GetMysqlDataSourceName() != "" || f.settings().GetStore().GetMysqlDsnFile() != ""
	if shared && f.pb.GetHttpsConfig() != nil && f.pb.GetNotificationListenAddress() == "" && !f.settings().GetNotifier().GetDisabled() {
		r.Warn("notification_listen_address", "absent: messages given to daemons on other machines wait for this server's sweep",
			`write for example ":6062", and notification_public_address`)
	}
}
