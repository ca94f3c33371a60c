package harness

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/clientcert"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
)

// frontHeader carries the client's certificate from a Front to the fs-server behind it.
const frontHeader = "X-Client-Certificate"

// frontPatience bounds the end of a Front that agents still talk to.
const frontPatience = 5 * time.Second

// BehindFront makes an fs-server believe the certificates that a Front passes on, over plain HTTP.
func BehindFront(config *componentspb.Config) {
	config.HttpsConfig.FrontendConfig = &componentspb.FrontendConfig{
		FrontendMode: &componentspb.FrontendConfig_CleartextHeaderConfig{
			CleartextHeaderConfig: &componentspb.CleartextHeaderConfig{ClientCertificateHeader: frontHeader},
		},
	}
	config.Farspeak.Server.FrontendTrustedSources = []string{"127.0.0.1/32"}
}

// Try is one contact that an agent asked a Front for. Downloads of files are none.
type Try struct {
	Path     string
	Encoding string    // Content-Encoding
	Began    time.Time // when the request was there
	Status   int       // of the refusal; 0 for one that was handed on
	Refused  time.Time // right before the refusal was written
}

// Refusal is what a Front answers in place of the server.
type Refusal struct {
	Status     int
	RetryAfter time.Duration // whole seconds; 0 gives no hint
}

// Front ends TLS before an fs-server that was set up by BehindFront, as an L7 balancer does. It notes every try of an agent,
// and refuses those that it is told to.
type Front struct {
	Address string

	proxy  *httputil.ReverseProxy
	refuse func(number int, t Try) *Refusal

	mu    sync.Mutex
	tries []Try
}

// StartFront runs a front before a server until the test ends. refuse, called with the tries counted from 0, returns nil for
// those that go through; a nil function refuses none.
func (s *Site) StartFront(server *Server, refuse func(number int, t Try) *Refusal) *Front {
	s.tb.Helper()
	pair, err := tls.X509KeyPair([]byte(s.certificates.certificate), []byte(s.certificates.key))
	if err != nil {
		s.tb.Fatal(err)
	}
	f := &Front{Address: FreeAddress(s.tb), proxy: handOn(server.ClientAddress), refuse: refuse}
	listener, err := tls.Listen("tcp", f.Address, &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	web := &http.Server{Handler: f, ReadHeaderTimeout: startTimeout, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = web.Serve(listener) })
	s.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.tb.Context()), frontPatience)
		defer cancel()
		_ = web.Shutdown(ctx) // sessions do not end by themselves
		_ = web.Close()
		serving.Wait()
	})
	return f
}

// handOn passes requests on, with the certificate that the client showed. Sessions pass both ways at once.
func handOn(address string) *httputil.ReverseProxy {
	target := &url.URL{Scheme: "http", Host: address}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set(frontHeader, clientcert.EncodeHeader(r.In.TLS.PeerCertificates[0].Raw))
			r.Out.Header.Del("Expect") // the front itself asks for the body
		},
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		FlushInterval: -1,
		// An agent or a server that ends a session in the middle is no news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/message" || r.URL.Path == "/streaming-message" {
		if refusal := f.judge(r); refusal != nil {
			refusal.write(w)
			return
		}
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has it anyway
	f.proxy.ServeHTTP(w, r)
}

func (f *Front) judge(r *http.Request) *Refusal {
	t := Try{Path: r.URL.Path, Encoding: r.Header.Get("Content-Encoding"), Began: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	var refusal *Refusal
	if f.refuse != nil {
		refusal = f.refuse(len(f.tries), t)
	}
	if refusal != nil {
		t.Status, t.Refused = refusal.Status, time.Now()
	}
	f.tries = append(f.tries, t)
	return refusal
}

func (r *Refusal) write(w http.ResponseWriter) {
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.RetryAfter/time.Second)))
	}
	http.Error(w, "refused by the front", r.Status)
}

// Tries are those so far, in order.
func (f *Front) Tries() []Try {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tries)
}
