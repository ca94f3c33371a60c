package agent

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

// fileServers starts servers that answer requests for files as they are told, and makes a link to them.
func fileServers(t *testing.T, answers ...http.HandlerFunc) (l *link, addresses []string) {
	t.Helper()
	roots := x509.NewCertPool()
	for _, answer := range answers {
		server := httptest.NewTLSServer(answer)
		t.Cleanup(server.Close)
		roots.AddCert(server.Certificate())
		addresses = append(addresses, server.Listener.Addr().String())
	}
	s, err := openState(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := LinkConfig{DialConfig: DialConfig{Roots: roots}, Servers: addresses}
	l = newLink(cfg, nil, s, nil, newRouter(func() identity.ClientID { return s.identity().ID }, nil), nil)
	t.Cleanup(l.transports.close)
	return l, addresses
}

// Files come from the server of the contacts. Others are asked when that fails, and not those that asked for peace.
func TestFilesFollowTheContacts(t *testing.T) {
	asked := make(chan int, 10)
	answer := func(number, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			asked <- number
			w.WriteHeader(status)
		}
	}
	l, addresses := fileServers(t, answer(0, http.StatusInternalServerError), answer(1, http.StatusOK), answer(2, http.StatusOK))
	byAddress := map[string]*endpoint{}
	for _, p := range l.endpoints.list {
		byAddress[p.address] = p
	}
	fetch := func(want error, order ...int) {
		t.Helper()
		if _, _, err := l.fetchFile(t.Context(), systemService, revocationFile, ""); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		for _, number := range order {
			if len(asked) == 0 {
				t.Fatalf("server %d is not asked", number)
			}
			if got := <-asked; got != number {
				t.Errorf("server %d is asked, want %d", got, number)
			}
		}
		if len(asked) > 0 {
			t.Errorf("server %d is asked, too", <-asked)
		}
	}
	l.endpoints.prefer(byAddress[addresses[2]])
	fetch(nil, 2)
	l.endpoints.prefer(byAddress[addresses[1]])
	fetch(nil, 1)
	l.endpoints.postpone(byAddress[addresses[2]], time.Now().Add(time.Hour))
	l.endpoints.prefer(byAddress[addresses[0]])
	fetch(nil, 0, 1)
	for _, p := range byAddress {
		l.endpoints.postpone(p, time.Now().Add(time.Hour))
	}
	fetch(errNoServerReady)
}
