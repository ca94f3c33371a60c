package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/farspeak/farspeak/internal/config/netname"
	"github.com/farspeak/farspeak/internal/config/textpb"
)

// maxSocketPath is what the kernel takes as the path of a Unix socket, in bytes.
const maxSocketPath = 107

// listenAddress checks that the value can be listened on. It returns it unchanged, or "" after a complaint.
func listenAddress(r *textpb.Report, field, value string) string {
	if _, _, err := netname.Split(value); err != nil {
		r.Error(field, fmt.Sprintf("%q is not host:port: %v", value, err), `write for example "localhost:9000" or ":443"`)
		return ""
	}
	return value
}

// dialAddress checks that others can connect to the value. It returns it, or "" after a complaint: of an address that the
// original takes, a warning, since messages that nobody is told of arrive with the sweep.
func dialAddress(r *textpb.Report, field, value string) string {
	host, port, err := netname.Split(value)
	switch ip, _ := netip.ParseAddr(host); {
	case err != nil:
		r.Error(field, fmt.Sprintf("%q is not host:port: %v", value, err), `write for example "server1.example.com:8080"`)
	case host == "" || ip.IsUnspecified() || port == 0:
		r.Warn(field, fmt.Sprintf("nobody can connect to %q, the listen address is used", value), "write the name or address and the port that other daemons can reach")
	default:
		return value
	}
	return ""
}

// adminAddress also takes "unix:/path".
func adminAddress(r *textpb.Report, field, value string) (network, address string) {
	path, isUnix := strings.CutPrefix(value, "unix:")
	if !isUnix {
		return "tcp", listenAddress(r, field, value)
	}
	path = strings.TrimPrefix(path, "//")
	switch {
	case !strings.HasPrefix(path, "/"):
		r.Error(field, "the path of the Unix socket is not absolute", `write for example "unix:/run/farspeak/admin.sock"`)
	case len(path) > maxSocketPath:
		r.Error(field, fmt.Sprintf("the path of the Unix socket is longer than %d bytes", maxSocketPath), "choose a shorter one")
	default:
		return "unix", path
	}
	return "unix", ""
}

// prefixes reads CIDR ranges; a bare address is a range of one.
func prefixes(r *textpb.Report, field string, values []string) []netip.Prefix {
	var out []netip.Prefix
	for i, v := range values {
		if addr, err := netip.ParseAddr(v); err == nil && addr.Zone() == "" {
			out = append(out, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(v)
		if err != nil {
			r.Error(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q is not a CIDR range", v), `write for example "10.0.0.0/8"`)
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}

// isLocal says whether only this machine can reach the listen address.
func isLocal(network, address string) bool {
	if network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	ip, _ := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || ip.IsLoopback())
}
