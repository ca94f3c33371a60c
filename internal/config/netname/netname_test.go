package netname_test

import (
	"testing"

	"github.com/farspeak/farspeak/internal/config/netname"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		value, host string
		port        int
		err         string
	}{
		{"localhost:9000", "localhost", 9000, ""},
		{":443", "", 443, ""},
		{"[::1]:0", "::1", 0, ""},
		{":https", "", 443, ""},
		{"localhost", "", 0, "missing port in address"},
		{"::1:443", "", 0, "too many colons in address"},
		{"", "", 0, "missing port in address"},
		{":", "", 0, "the port is empty"},
		{"a:65536", "", 0, "unknown port"},
		{"a:-1", "", 0, "unknown port"},
		{"a:walrus", "", 0, "unknown port"},
		{"http://a:80", "", 0, "too many colons in address"},
		{"a/b:80", "", 0, "the host is not a name"},
	}
	for _, tt := range tests {
		host, port, err := netname.Split(tt.value)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if host != tt.host || port != tt.port || got != tt.err {
			t.Errorf("Split(%q) = %q, %d, %q; want %q, %d, %q", tt.value, host, port, got, tt.host, tt.port, tt.err)
		}
	}
}

func TestIsHeader(t *testing.T) {
	for name, want := range map[string]bool{
		"client-certificate": true, "X-Forwarded-Client-Cert": true, "": false, "a b": false, "a:": false, "ä": false, "a\n": false,
	} {
		if got := netname.IsHeader(name); got != want {
			t.Errorf("IsHeader(%q) = %v", name, got)
		}
	}
}
