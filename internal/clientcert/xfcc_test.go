package clientcert_test

import (
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
)

func TestXFCC(t *testing.T) {
	for _, test := range []struct{ header, want string }{
		// The first Cert of any element.
		{`Cert=a`, `a`},
		{`Cert="a"`, `a`},
		{`Hash=x;Cert=a;Cert=b`, `a`},
		{`Hash=x,Hash=y;Cert=a`, `a`},
		{`Cert=a,Cert=b`, `a`},
		{`By=;Cert=a`, `a`},
		// Quotes and escapes.
		{`Subject="O=x;Cert=no,Cert=no";Cert=a`, `a`},
		{`Subject="say \"Cert=no;\"";Cert=a`, `a`},
		{`Subject=x\;y;Cert=a`, `a`},
		{`Cert="a;b,c=d"`, `a;b,c=d`},
		{`Cert=a\;b`, `a;b`},
		{`Cert="a\\b\"c"`, `a\b"c`},
		{`Cert=a"b;c"d`, `ab;cd`},
		{`Cert="a`, `a`},
		{`Cert=YQ==;Hash=x`, `YQ==`},
		// Keys are taken as they stand.
		{`cert=a`, `cert=a`},
		{`CERT=a`, `CERT=a`},
		{` Cert=a`, ` Cert=a`},
		{`Hash=x; Cert=a`, `Hash=x; Cert=a`},
		{`Cert =a`, `Cert =a`},
		{`Flag;Cert=a`, `Flag;Cert=a`},
		{`Chain=a`, `Chain=a`},
		// The whole header when there is no Cert.
		{``, ``},
		{`-----BEGIN%20CERTIFICATE-----%0AYQ==`, `-----BEGIN%20CERTIFICATE-----%0AYQ==`},
		{`Cert=`, `Cert=`},
		{`Cert="";Cert=a`, `Cert="";Cert=a`},
		{`=x;Cert=a`, `=x;Cert=a`},
		{`Hash=x;=y;Cert=a`, `Hash=x;=y;Cert=a`},
		{`Hash=x;Cert=a\`, `Hash=x;Cert=a\`},
		{`Cert="a\`, `Cert="a\`},
		{`Cert`, `Cert`},
	} {
		if got := clientcert.XFCCCertificate(test.header); got != test.want {
			t.Errorf("%s: %q, want %q", test.header, got, test.want)
		}
	}
}
