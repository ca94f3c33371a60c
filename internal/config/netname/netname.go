// Package netname knows the syntax of the network names in configuration files, for servers and agent alike. It resolves
// no host and opens no connection.
package netname

import (
	"errors"
	"net"
	"strings"
)

// Split takes host:port apart. The host may be empty; the port is a number or a service name of /etc/services and comes
// back as a number. Errors do not repeat the value.
func Split(value string) (host string, port int, err error) {
	host, service, err := net.SplitHostPort(value)
	if err != nil {
		if ae, ok := errors.AsType[*net.AddrError](err); ok {
			err = errors.New(ae.Err)
		}
		return "", 0, err
	}
	if strings.ContainsAny(host, " \t\r\n/\"'@") {
		return "", 0, errors.New("the host is not a name")
	}
	if service == "" {
		return "", 0, errors.New("the port is empty")
	}
	if port, err = net.LookupPort("tcp", service); err != nil {
		return "", 0, errors.New("unknown port")
	}
	return host, port, nil
}

// IsHeader says whether the name can be that of an HTTP header: a token by RFC 9110.
func IsHeader(name string) bool {
	for _, c := range []byte(name) {
		isLetterOrDigit := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !isLetterOrDigit && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}
