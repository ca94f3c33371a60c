package peer

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// pollTimeout bounds one poll.
const pollTimeout = 30 * time.Second

// Poller polls under one key. Close it after use.
type Poller struct {
	target Target
	key    *Key
	client *http.Client
}

// NewPoller makes a Poller; nothing is dialled yet.
func (t Target) NewPoller(key *Key) *Poller {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return t.DialTCP(ctx) },
	}
	if t.Roots != nil {
		transport.TLSClientConfig = t.tlsConfig(key)
	}
	return &Poller{target: t, key: key, client: &http.Client{Transport: transport, Timeout: pollTimeout}}
}

// Poll does one exchange. The answer has the nonce and the messages.
func (p *Poller) Poll(ctx context.Context, contact *fspb.ContactData, labels []string) (*fspb.ContactData, error) {
	body, err := Wrap(contact, labels)
	if err != nil {
		return nil, err
	}
	answer, err := p.post(ctx, body)
	if err != nil {
		return nil, err
	}
	reply := &fspb.ContactData{}
	return reply, proto.Unmarshal(answer, reply)
}

func (p *Poller) post(ctx context.Context, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("/message"), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if p.target.CertificateHeader != "" {
		request.Header.Set(p.target.CertificateHeader, p.key.HeaderValue())
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusedBy(response)
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, maxServerRecord))
}

func (p *Poller) url(path string) string {
	if p.target.Roots == nil {
		return "http://" + p.target.Address + path
	}
	return "https://" + p.target.Address + path
}

// Close drops idle connections.
func (p *Poller) Close() { p.client.CloseIdleConnections() }
