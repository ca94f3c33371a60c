package config

import (
	"crypto/tls"

	"github.com/farspeak/farspeak/internal/config/textpb"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
)

// Admin is what fs-admin takes from the components file, defaults applied.
type Admin struct {
	Network string // tcp or unix
	Address string // host:port, or the path of the socket

	TLS                 *tls.Config // nil: plaintext
	Token               Secret      // that each call has to carry; zero: none is asked for
	MaxMessageBytes     int         // of one gRPC message, either way
	Reflection          bool
	MaxPendingPerClient uint64 // messages that may wait for one client
	BacklogMaxMessages  uint64 // messages that may wait for services; fs-server's setting, since the backlog is one

	Notifier      Notifier
	StatsAddress  string // host:port, empty: none
	HealthAddress string // host:port, empty: none

	Warnings textpb.Problems
}

// Admin returns fs-admin's part. The error has a line for each broken rule.
//
// stats_config and health_check_config name one port each. In a file that also has an https_config they are fs-server's,
// so that both daemons can run from one file; fs-admin then has its own in farspeak.admin.
func (f *File) Admin() (Admin, error) {
	r := f.doc.NewReport()
	a := f.admin(r, true)
	a.Warnings = r.Problems().Warnings()
	return a, r.Problems().Err()
}

func (f *File) admin(r *textpb.Report, required bool) Admin {
	pb := f.settings().GetAdmin()
	const at = "farspeak.admin."
	a := Admin{
		TLS:                 f.adminTLS(r, pb.GetTls()),
		Token:               secretFile(r, at+"token_file", pb.GetTokenFile()),
		MaxMessageBytes:     int(number(r, at+"max_message_bytes", pb.GetMaxMessageBytes(), maxMessageBytes)),
		Reflection:          !pb.GetDisableReflection(),
		MaxPendingPerClient: number(r, at+"max_pending_messages_per_client", pb.GetMaxPendingMessagesPerClient(), maxPendingPerClient),
		BacklogMaxMessages: number(r, "farspeak.server.backlog_max_messages", f.settings().GetServer().GetBacklogMaxMessages(),
			backlogMaxMessages),
		Notifier:      f.notifier(r),
		StatsAddress:  optionalAddress(r, at+"stats_address", pb.GetStatsAddress()),
		HealthAddress: optionalAddress(r, at+"health_check_address", pb.GetHealthCheckAddress()),
	}
	warnIfShort(r, at+"token_file", a.Token)
	if f.pb.GetHttpsConfig() == nil {
		f.ownDebugAddresses(r, &a)
	}
	f.adminListener(r, &a, required)
	return a
}

// ownDebugAddresses takes the addresses that nobody else on this machine takes.
func (f *File) ownDebugAddresses(r *textpb.Report, a *Admin) {
	if a.StatsAddress == "" {
		a.StatsAddress = optionalAddress(r, "stats_config.address", f.pb.GetStatsConfig().GetAddress())
	}
	if a.HealthAddress == "" {
		a.HealthAddress = optionalAddress(r, "health_check_config.listen_address", f.pb.GetHealthCheckConfig().GetListenAddress())
	}
}

func (f *File) adminListener(r *textpb.Report, a *Admin, required bool) {
	const field = "admin_config.listen_address"
	pb := f.pb.GetAdminConfig()
	switch {
	case pb == nil && required:
		r.Error("admin_config", "absent; this daemon serves backends", `add admin_config { listen_address: "localhost:6061" }`)
	case pb == nil:
	case pb.GetListenAddress() == "":
		r.Error(field, "absent", `write host:port or a Unix socket, for example "localhost:6061" or "unix:/run/farspeak/admin.sock"`)
	default:
		a.Network, a.Address = adminAddress(r, field, pb.GetListenAddress())
		f.warnIfExposed(r, field, a)
	}
}

// warnIfExposed warns of an admin port that asks nobody who they are (G-17).
func (f *File) warnIfExposed(r *textpb.Report, field string, a *Admin) {
	own := f.settings().GetAdmin()
	open := own.GetTokenFile() == "" && own.GetTls().GetClientCaFile() == ""
	switch {
	case a.Address == "" || isLocal(a.Network, a.Address):
	case open:
		r.Warn(field, "whoever reaches this port can run anything on every client",
			"listen on a Unix socket or localhost, or set farspeak.admin.tls and farspeak.admin.token_file")
	case own.GetTls() == nil:
		r.Warn(field, "the token and all messages travel in plaintext", "set farspeak.admin.tls")
	}
}

// adminTLS returns nil when no TLS is configured.
func (f *File) adminTLS(r *textpb.Report, pb *settingspb.Tls) *tls.Config {
	if pb == nil {
		return nil
	}
	const at = "farspeak.admin.tls."
	pair := f.keyPair(r,
		pemSource{path: pb.GetCertificateFile(), pathField: at + "certificate_file"},
		pemSource{path: pb.GetKeyFile(), pathField: at + "key_file"})
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if pb.GetClientCaFile() != "" {
		c.ClientCAs = authorities(r, at+"client_ca_file", pb.GetClientCaFile())
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

// warnIfShort warns of a secret that can be guessed.
func warnIfShort(r *textpb.Report, field string, s Secret) {
	if !s.IsZero() && len(s.Reveal()) < shortSecret {
		r.Warn(field, "the secret is shorter than 16 bytes", "make one with: openssl rand -hex 32")
	}
}
