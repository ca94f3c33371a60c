package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// resuming gives an agent a certificate that our agents make, one that does not expire, so that TLS resumes with it, and a
// cache for tickets.
func (a *testAgent) resuming() *tls.Config {
	a.t.Helper()
	a.certificate = selfSigned(a.t, time.Now().AddDate(100, 0, 0))
	var err error
	if a.id, err = identity.ClientIDFromKey(a.certificate.PrivateKey.(*ecdsa.PrivateKey).Public()); err != nil {
		a.t.Fatal(err)
	}
	config := a.tls("http/1.1")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	config.ServerName = "localhost"
	return config
}

// pollOver makes one poll on a connection of its own and says whether TLS resumed.
func (a *testAgent) pollOver(address string, config *tls.Config) (resumed bool, status int) {
	a.t.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		a.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, "https://localhost/message", bytes.NewReader(a.wrap(&fspb.ContactData{})))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		a.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	return conn.ConnectionState().DidResume, response.StatusCode
}

// A second connection resumes, on the same server or on another one that shares the store, and the client is still known
// by its key (G-25). A blacklisted key gets nothing by it.
func TestTicketsOfAllServers(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			first := start(t)
			second := start(t, func(c *server.Config) { c.Store, c.ID = sqlStore{first.store}, "second" })
			agent := newTestAgent(t, "")
			config := agent.resuming()
			config.MaxVersion = version
			for i, address := range []string{first.address, first.address, second.address} {
				resumed, status := agent.pollOver(address, config)
				if status != http.StatusOK || resumed != (i > 0) {
					t.Errorf("connection %d: resumed %v, status %d", i, resumed, status)
				}
			}
			contacts, err := first.store.ListContacts(t.Context(), agent.id, time.Time{}, 10)
			if err != nil || len(contacts) != 3 {
				t.Errorf("%d contacts of the client, %v; want 3", len(contacts), err)
			}
		})
	}
}

// skewedStore has a clock that is behind this machine's.
type skewedStore struct {
	server.Store
	behind time.Duration
}

func (s skewedStore) Heartbeat(ctx context.Context, info store.ServerInfo) (time.Time, error) {
	now, err := s.Store.Heartbeat(ctx, info)
	return now.Add(-s.behind), err
}

func (s skewedStore) TicketKeys(ctx context.Context, limit int) ([]store.TicketKey, error) {
	keys, err := s.Store.TicketKeys(ctx, limit)
	for i := range keys {
		keys[i].Created = keys[i].Created.Add(-s.behind)
	}
	return keys, err
}

// The age of ticket keys goes by the clock of the store: a machine whose own clock is wrong would make new ones all the
// time, and none would live long enough to resume with (G-48).
func TestTicketKeysGoByTheClockOfTheStore(t *testing.T) {
	first := start(t)
	skewed := skewedStore{sqlStore{first.store}, 30 * time.Hour}
	for _, id := range []string{"second", "third"} {
		f := start(t, func(c *server.Config) { c.Store, c.ID = skewed, id })
		if resumed, status := newTestAgent(t, "").pollOver(f.address, newTestAgent(t, "").resuming()); resumed || status != http.StatusOK {
			t.Errorf("resumed %v, status %d", resumed, status)
		}
	}
	if keys := first.database.Count(t, "SELECT COUNT(*) FROM ticket_keys"); keys != 1 {
		t.Errorf("%d ticket keys, want 1", keys)
	}
}
