package wire_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
)

func TestDecodeEncoding(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   wire.Encoding
		ok     bool
	}{
		{nil, wire.EncodingNone, true},
		{[]string{""}, wire.EncodingNone, true},
		{[]string{"deflate"}, wire.EncodingDeflate, true},
		{[]string{"Deflate"}, 0, false},
		{[]string{"deflate "}, 0, false},
		{[]string{"deflate, deflate"}, 0, false},
		{[]string{"gzip"}, 0, false},
		{[]string{"identity"}, 0, false},
		{[]string{strings.Repeat("x", 1<<16)}, 0, false},
	} {
		got, err := wire.DecodeEncoding(http.Header{"Content-Encoding": test.values})
		if got != test.want || (err == nil) != test.ok || (err != nil && !errors.Is(err, wire.ErrUnsupportedEncoding)) {
			t.Errorf("%.20q: encoding %v, error %v", test.values, got, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	for _, encoding := range []wire.Encoding{wire.EncodingNone, wire.EncodingDeflate} {
		header := make(http.Header)
		encoding.SetHeader(header)
		if got, err := wire.DecodeEncoding(header); got != encoding || err != nil {
			t.Errorf("encoding %v comes back as %v, error %v", encoding, got, err)
		}
	}
}

func TestNewBody(t *testing.T) {
	for _, test := range []struct {
		encoding wire.Encoding
		body     string
		want     string
		ok       bool
	}{
		{wire.EncodingNone, "plain", "plain", true},
		{wire.EncodingDeflate, string(wire.AppendDeflated(nil, []byte("packed"))), "packed", true},
		{wire.EncodingDeflate, "plain", "", false},
	} {
		body, err := wire.NewBody(strings.NewReader(test.body), test.encoding)
		if !test.ok {
			if !errors.Is(err, wire.ErrProtocol) || body != nil {
				t.Errorf("%q: body %v, error %v", test.body, body, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); string(got) != test.want || err != nil {
			t.Errorf("%q, error %v, want %q", got, err, test.want)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}
