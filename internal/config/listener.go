package config

import (
	"crypto/tls"
	"net/netip"

	"github.com/farspeak/farspeak/internal/config/netname"
	"github.com/farspeak/farspeak/internal/config/textpb"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
)

// FrontendMode says how a client's certificate reaches the server.
type FrontendMode int

// The modes of frontend_config.
const (
	MutualTLS               FrontendMode = iota // in the TLS handshake
	HTTPSHeader                                 // in a header that the balancer writes
	HTTPSHeaderChecksum                         // in a header that the client writes; the balancer vouches for it in another
	CleartextHeader                             // as HTTPSHeader, the listener speaks plain HTTP
	CleartextHeaderChecksum                     // as HTTPSHeaderChecksum, the listener speaks plain HTTP
	CleartextXFCC                               // in Envoy's forwarded-client-cert header, plain HTTP
)

// IsCleartext says whether the listener speaks plain HTTP.
func (m FrontendMode) IsCleartext() bool { return m >= CleartextHeader }

// Listener is where clients connect, https_config.
type Listener struct {
	Address           string          // host:port
	Certificate       tls.Certificate // chain and key; empty in cleartext modes
	Frontend          Frontend
	Streaming         bool // serve /streaming-message
	FileAuthorization bool // authorize downloads too
}

// Frontend is how client certificates arrive.
type Frontend struct {
	Mode              FrontendMode
	CertificateHeader string         // empty with MutualTLS
	ChecksumHeader    string         // in the checksum modes
	TrustedSources    []netip.Prefix // balancers that are believed; empty: anyone
}

func (f *File) listener(r *textpb.Report, required bool) Listener {
	pb, own := f.pb.GetHttpsConfig(), f.settings().GetServer()
	trusted := prefixes(r, "farspeak.server.frontend_trusted_sources", own.GetFrontendTrustedSources())
	if pb == nil {
		if required {
			r.Error("https_config", "absent; this daemon serves clients", `add https_config { listen_address: ":443" ... }`)
		}
		return Listener{}
	}
	l := Listener{
		Frontend:          frontend(r, pb.GetFrontendConfig(), trusted),
		Streaming:         !pb.GetDisableStreaming(),
		FileAuthorization: pb.GetEnableFileServerAuthorization(),
	}
	if pb.GetListenAddress() == "" {
		r.Error("https_config.listen_address", "absent", `write host:port, for example ":443"`)
	} else {
		l.Address = listenAddress(r, "https_config.listen_address", pb.GetListenAddress())
	}
	l.Certificate = f.serverCertificate(r, pb, l.Frontend.Mode)
	return l
}

func (f *File) serverCertificate(r *textpb.Report, pb *componentspb.HttpsConfig, mode FrontendMode) tls.Certificate {
	own := f.settings().GetServer()
	chain := pemSource{[]byte(pb.GetCertificates()), "https_config.certificates", own.GetCertificatesFile(), "farspeak.server.certificates_file"}
	key := pemSource{[]byte(pb.GetKey()), "https_config.key", own.GetKeyFile(), "farspeak.server.key_file"}
	if len(key.inline) > 0 && isOpen(f.mode) {
		r.Warn(key.field, "this file is open to others and holds the private key", "chmod 0640 it, or use "+key.pathField)
	}
	if !mode.IsCleartext() {
		return f.keyPair(r, chain, key)
	}
	for _, source := range []pemSource{chain, key} {
		if field := source.given(); field != "" {
			r.Warn(field, "without effect, since the listener speaks plain HTTP", "remove it")
		}
	}
	return tls.Certificate{}
}

func frontend(r *textpb.Report, pb *componentspb.FrontendConfig, trusted []netip.Prefix) Frontend {
	fe := Frontend{TrustedSources: trusted}
	var name string
	var headers interface{ GetClientCertificateHeader() string }
	switch m := pb.GetFrontendMode().(type) {
	case *componentspb.FrontendConfig_HttpsHeaderConfig:
		fe.Mode, name, headers = HTTPSHeader, "https_header_config", m.HttpsHeaderConfig
	case *componentspb.FrontendConfig_HttpsHeaderChecksumConfig:
		fe.Mode, name, headers = HTTPSHeaderChecksum, "https_header_checksum_config", m.HttpsHeaderChecksumConfig
	case *componentspb.FrontendConfig_CleartextHeaderConfig:
		fe.Mode, name, headers = CleartextHeader, "cleartext_header_config", m.CleartextHeaderConfig
	case *componentspb.FrontendConfig_CleartextHeaderChecksumConfig:
		fe.Mode, name, headers = CleartextHeaderChecksum, "cleartext_header_checksum_config", m.CleartextHeaderChecksumConfig
	case *componentspb.FrontendConfig_CleartextXfccConfig:
		fe.Mode, name, headers = CleartextXFCC, "cleartext_xfcc_config", m.CleartextXfccConfig
	default:
		return fe
	}
	path := "https_config.frontend_config." + name
	fe.CertificateHeader = header(r, path+".client_certificate_header", headers.GetClientCertificateHeader())
	if c, ok := headers.(interface{ GetClientCertificateChecksumHeader() string }); ok {
		fe.ChecksumHeader = header(r, path+".client_certificate_checksum_header", c.GetClientCertificateChecksumHeader())
	}
	if len(fe.TrustedSources) == 0 {
		r.Warn(path, "whoever reaches the listener can name any client's certificate in a header",
			"list the balancers in farspeak.server.frontend_trusted_sources")
	}
	return fe
}

// header checks the name of an HTTP header.
func header(r *textpb.Report, field, name string) string {
	if name == "" {
		r.Error(field, "absent", "write the header's name, the same as in the balancer and the clients")
		return ""
	}
	if !netname.IsHeader(name) {
		r.Error(field, "not the name of an HTTP header", "use letters, digits and dashes")
		return ""
	}
	return name
}
