package integration_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/vectors"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	certificateHeader = "Client-Certificate"
	recordings        = "../../internal/wire/testdata"
	identities        = "../../internal/identity/testdata/ids.json"
)

// What the original's client said is said to fs-server again, byte by byte, and what fs-server answers means the same as
// what the original's server answered. The recordings have no private keys, so fs-server takes the certificates from an
// HTTP header.
func TestReplayRecordedSessions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"session-stream", "session-stream-deflate", "session-poll", "session-broadcast-close"} {
		t.Run(name, func(t *testing.T) {
			i := install(t, shape{
				site: func(s *harness.Site) {
					// The recorded session that ends by done_sending would take ten minutes; it leaves after 4 to 5 s here.
					s.Components.Farspeak.Server.StreamLifetime = durationpb.New(10 * time.Second)
				},
				server: func(_ int, config *componentspb.Config) {
					config.HttpsConfig.Certificates, config.HttpsConfig.Key = "", ""
					config.HttpsConfig.FrontendConfig = &componentspb.FrontendConfig{
						FrontendMode: &componentspb.FrontendConfig_CleartextHeaderConfig{
							CleartextHeaderConfig: &componentspb.CleartextHeaderConfig{ClientCertificateHeader: certificateHeader},
						},
					}
				},
			})
			r := &replay{installation: i, t: t, admin: i.admins[0].Client(t)}
			for _, connection := range vectors.Load(t, filepath.Join(recordings, name+".jsonl")) {
				r.connection(connection)
			}
			r.checkIDs()
		})
	}
}

// replay says recorded sessions again.
type replay struct {
	*installation
	t     *testing.T
	admin *harness.AdminClient

	presented [][]byte // certificates, DER
	uploaded  []upload // messages of clients for the backend
}

type upload struct {
	certificate []byte
	message     *fspb.Message
}

func (r *replay) connection(c *vectors.Connection) {
	r.t.Helper()
	r.presented = append(r.presented, c.Certificate)
	exchanges := c.Exchanges(r.t)
	if len(exchanges) == 1 && exchanges[0].Request.URL.Path == "/streaming-message" {
		r.stream(c, exchanges[0])
		return
	}
	conn := dialRaw(r.t, r.servers[0].ClientAddress, "")
	defer conn.Close()
	live := bufio.NewReader(conn)
	for _, e := range exchanges {
		r.exchange(conn, live, c, e)
	}
}

// exchange repeats a request with its whole body, and compares the responses.
func (r *replay) exchange(conn net.Conn, live *bufio.Reader, c *vectors.Connection, e vectors.Exchange) {
	r.t.Helper()
	want := &fspb.ContactData{}
	poll := e.Request.URL.Path == "/message"
	if poll {
		r.noteUploads(c.Certificate, e.RequestBody)
		r.mustUnmarshal(e.ResponseBody, want)
		r.prepare(c.Certificate, want)
	}
	request := e.Request.Clone(r.t.Context())
	request.Header.Set(certificateHeader, peer.HeaderValue(c.Certificate))
	request.Body = io.NopCloser(bytes.NewReader(e.RequestBody))
	if err := conn.SetDeadline(time.Now().Add(promptly)); err != nil {
		r.t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		r.t.Fatal(err)
	}
	response, err := http.ReadResponse(live, e.Request)
	if err != nil {
		r.t.Fatalf("%s: %v", e.Request.URL, err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatalf("%s: %v", e.Request.URL, err)
	}
	if response.StatusCode != e.Response.StatusCode {
		r.t.Fatalf("%s: status %s, recorded %s: %s", e.Request.URL, response.Status, e.Response.Status, body)
	}
	if !poll {
		if !bytes.Equal(body, e.ResponseBody) {
			r.t.Errorf("%s: body %q, recorded %q", e.Request.URL, body, e.ResponseBody)
		}
		return
	}
	got := &fspb.ContactData{}
	r.mustUnmarshal(body, got)
	if got.SequencingNonce == 0 || got.AckIndex != 0 || got.DoneSending {
		r.t.Errorf("poll answered with %v", got)
	}
	r.compareMessages(got.Messages, want.Messages)
}

// stream repeats a session: what the client sent after it had seen so many records of the server is sent again after as
// many.
func (r *replay) stream(c *vectors.Connection, e vectors.Exchange) {
	r.t.Helper()
	want := contactsOf(r.t, e.ResponseBody)
	for _, contact := range want[:1] {
		r.prepare(c.Certificate, contact) // record 0 is made before anything can be inserted
	}
	conn := dialRaw(r.t, r.servers[0].ClientAddress, "")
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * promptly)); err != nil {
		r.t.Fatal(err)
	}
	live := &liveStream{conn: bufio.NewReader(conn)}
	var recorded []byte // of the server so far
	seen := 0
	var nonce uint64
	for _, read := range c.Reads {
		if read.FromClient {
			if _, err := conn.Write(withHeader(read.Bytes, c.Certificate)); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		recorded = append(recorded, read.Bytes...)
		for count := countRecords(recorded); seen < count; seen++ {
			if seen > 0 {
				r.prepare(c.Certificate, want[seen])
			}
			got, err := live.like(want[seen])
			if err != nil {
				r.t.Fatalf("record %d of the server, recorded as %v: %v", seen, want[seen], err)
			}
			if seen == 0 {
				nonce = got.SequencingNonce
			}
			r.compareRecord(seen, got, want[seen], nonce)
		}
	}
	for _, message := range r.clientMessages(e) {
		r.uploaded = append(r.uploaded, upload{c.Certificate, message})
	}
}

// compareRecord holds one record of the server against the recorded one.
func (r *replay) compareRecord(number int, got, want *fspb.ContactData, nonce uint64) {
	r.t.Helper()
	if got.AckIndex != want.AckIndex || got.DoneSending != want.DoneSending {
		r.t.Errorf("record %d: %v, recorded %v", number, got, want)
	}
	if want.SequencingNonce != 0 && (got.SequencingNonce == 0 || got.SequencingNonce != nonce) {
		r.t.Errorf("record %d: nonce %d on a session with nonce %d", number, got.SequencingNonce, nonce)
	}
	r.compareMessages(got.Messages, want.Messages)
}

// compareMessages ignores what is random: the IDs and times of messages that the server itself made.
func (r *replay) compareMessages(got, want []*fspb.Message) {
	r.t.Helper()
	if len(got) != len(want) {
		r.t.Errorf("messages %v, recorded %v", got, want)
		return
	}
	for n := range got {
		g, w := proto.CloneOf(got[n]), proto.CloneOf(want[n])
		if len(g.MessageId) != len(w.MessageId) || g.CreationTime == nil {
			r.t.Errorf("message %v, recorded %v", g, w)
		}
		if !inserted(w) {
			g.MessageId, g.CreationTime, w.MessageId, w.CreationTime = nil, nil, nil, nil
		}
		if !proto.Equal(g, w) {
			r.t.Errorf("message %v, recorded %v", g, w)
		}
	}
}

// inserted tells messages of the admin interface from those that the server made of a broadcast or for itself: the
// recordings have them from the service "sink".
func inserted(m *fspb.Message) bool { return m.Source.GetServiceName() == "sink" }

// prepare does through fs-admin what made the recorded server say this.
func (r *replay) prepare(certificate []byte, contact *fspb.ContactData) {
	r.t.Helper()
	for _, m := range contact.Messages {
		switch {
		case inserted(m):
			r.admin.MustInsert(r.t, m)
		case m.MessageType == "RekeyRequest":
			blacklist(r.t, r.admin, r.clientID(certificate))
		default:
			_, err := r.admin.CreateBroadcast(r.t.Context(), &serverpb.CreateBroadcastRequest{
				Limit:     1,
				Broadcast: &serverpb.Broadcast{Source: m.Source, MessageType: m.MessageType, Data: m.Data},
			})
			if err != nil {
				r.t.Fatal(err)
			}
			r.awaitBroadcast()
		}
	}
}

// awaitBroadcast waits until fs-server has heard of a broadcast that its next client is to get.
func (r *replay) awaitBroadcast() {
	r.t.Helper()
	const metric = "farspeak_active_broadcasts 1"
	harness.Eventually(r.t, promptly, metric, func() error {
		if !bytes.Contains([]byte(r.servers[0].Metrics(r.t)), []byte(metric)) {
			return errors.New("not yet")
		}
		return nil
	})
}

// clientMessages are the messages of a recorded session, sent in whichever encoding.
func (r *replay) clientMessages(e vectors.Exchange) (messages []*fspb.Message) {
	r.t.Helper()
	stream := bytes.NewReader(e.RequestBody)
	body, err := inflated(stream, e.Request.Header.Get("Content-Encoding"))
	if err != nil {
		r.t.Fatal(err)
	}
	records := bufio.NewReader(body)
	if _, err := records.Discard(len(peer.Magic())); err != nil {
		r.t.Fatal(err)
	}
	for {
		record, err := peer.ReadRecord(records)
		if err != nil {
			return messages // the recording ends in the middle of the session
		}
		messages = append(messages, r.unwrap(record).Messages...)
	}
}

func (r *replay) noteUploads(certificate, body []byte) {
	r.t.Helper()
	for _, message := range r.unwrap(body).Messages {
		r.uploaded = append(r.uploaded, upload{certificate, message})
	}
}

func (r *replay) unwrap(record []byte) *fspb.ContactData {
	r.t.Helper()
	wrapped, contact := &fspb.WrappedContactData{}, &fspb.ContactData{}
	r.mustUnmarshal(record, wrapped)
	r.mustUnmarshal(wrapped.ContactData, contact)
	return contact
}

func (r *replay) mustUnmarshal(b []byte, m proto.Message) {
	r.t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		r.t.Fatal(err)
	}
}
