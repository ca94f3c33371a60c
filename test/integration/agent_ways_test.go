package integration_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
)

// ways are how an agent can talk to a server.
var ways = []struct {
	name    string
	options harness.ClientOptions
	path    string // of each contact
}{
	{"streaming", harness.ClientOptions{}, "/streaming-message"},
	{"polling", harness.ClientOptions{Polling: true}, "/message"},
}

// installBehindFront is an installation whose fs-server is reached through fronts.
func installBehindFront(t *testing.T) *installation {
	t.Helper()
	return install(t, shape{server: func(_ int, config *componentspb.Config) { harness.BehindFront(config) }})
}

// startBehind runs a client of a front and waits until it is known.
func (i *installation) startBehind(t *testing.T, front *harness.Front, name string, options harness.ClientOptions) *harness.Client {
	t.Helper()
	options.Servers = []string{front.Address}
	client := i.StartClient(strings.ReplaceAll(strings.TrimSpace(name), " ", "-"), options)
	awaitClients(t, i.admins[0].Client(t), []*harness.Client{client})
	return client
}

// A client that polls never streams and one that streams never polls; both compress what they send if they are told to, and
// are answered. (G-05)
func TestAgentWays(t *testing.T) {
	t.Parallel()
	i := installBehindFront(t)
	admin := i.admins[0].Client(t)
	for _, way := range ways {
		for _, encoding := range []string{"", "deflate"} {
			front := i.StartFront(i.servers[0], nil)
			options := way.options
			options.Deflate = encoding != ""
			client := i.startBehind(t, front, way.name+" "+encoding, options)
			for n := range 3 {
				i.echo(t, admin, client, fmt.Sprintf("%d of %s %s", n, way.name, encoding))
			}
			for n, try := range front.Tries() {
				if try.Path != way.path || try.Encoding != encoding {
					t.Errorf("%s %s: contact %d is %+v", way.name, encoding, n, try)
				}
			}
			if streams := admin.MustListClients(t, client.ID())[0].LastContactStreamingTo != ""; streams == options.Polling {
				t.Errorf("%s %s: the server takes it for one that streams: %t", way.name, encoding, streams)
			}
		}
	}
}

// A server that refuses compressed contacts gets plain ones from then on, from the second try of the first contact. (G-05)
func TestDeflateIsRefused(t *testing.T) {
	t.Parallel()
	i := installBehindFront(t)
	admin := i.admins[0].Client(t)
	for _, status := range []int{http.StatusUnsupportedMediaType, http.StatusBadRequest} {
		for _, way := range ways {
			front := i.StartFront(i.servers[0], func(_ int, try harness.Try) *harness.Refusal {
				if try.Encoding == "" {
					return nil
				}
				return &harness.Refusal{Status: status}
			})
			name := fmt.Sprintf("%s refused with %d", way.name, status)
			options := way.options
			options.Deflate = true
			client := i.startBehind(t, front, name, options)
			for n := range 3 {
				i.echo(t, admin, client, fmt.Sprintf("%d of %s", n, name))
			}
			for n, try := range front.Tries() {
				if refused := try.Status != 0; refused != (n == 0) {
					t.Errorf("%s: contact %d is %+v", name, n, try)
				}
			}
		}
	}
}

// A client that is told when to come back does not come before, and is served then. Without the hint it would come within a
// second, which is its bound for failures here.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const refusals, hint = 3, 2 * time.Second
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			i := installBehindFront(t)
			front := i.StartFront(i.servers[0], func(number int, _ harness.Try) *harness.Refusal {
				if number >= refusals {
					return nil
				}
				return &harness.Refusal{Status: http.StatusServiceUnavailable, RetryAfter: hint}
			})
			client := i.startBehind(t, front, "fs-client", way.options)
			i.echo(t, i.admins[0].Client(t), client, "after the refusals")
			tries := front.Tries()
			for n, try := range tries {
				if refused := try.Status != 0; refused != (n < refusals) {
					t.Errorf("try %d is %+v", n, try)
				}
				if n == 0 || n > refusals {
					continue
				}
				if wait := try.Began.Sub(tries[n-1].Refused); wait < hint {
					t.Errorf("try %d came %v after a refusal that asked for %v", n, wait, hint)
				}
			}
		})
	}
}

// With a proxy in its configuration a client reaches its server through that and in no other way: the proxy is asked for each
// connection, the server sees its address only, and while it is gone there is no contact.
func TestForwardProxy(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			i := install(t, shape{})
			admin, server := i.admins[0].Client(t), i.servers[0].ClientAddress
			proxy := i.StartForwardProxy("proxy")
			options := way.options
			options.Servers = []string{server}
			options.Adjust = func(config *genericpb.Config) { config.Proxy = "http://" + proxy.Address }
			client := i.StartClient("fs-client", options)
			awaitClients(t, admin, []*harness.Client{client})
			i.echo(t, admin, client, "through the proxy")
			before := proxy.Connects(server)

			proxy.Kill()
			awaitFailures(t, client, "proxyconnect", 3)
			admin.MustInsert(t, client.EchoRequest("without the proxy"))
			awaitFailures(t, client, "proxyconnect", 6)
			if i.backend.EchoReply(client.ID(), "without the proxy") != nil {
				t.Error("the client reached its server without the proxy")
			}
			proxy.Restart()
			proxy.AwaitListening()
			harness.Eventually(t, promptly, "the answer through the proxy", func() error {
				if i.backend.EchoReply(client.ID(), "without the proxy") == nil {
					return errors.New("the backend has no answer")
				}
				return nil
			})

			after := proxy.Connects(server)
			if before == 0 || after <= before {
				t.Errorf("the proxy was asked for %d connections before its restart and %d in all", before, after)
			}
			for _, contact := range contacts(t, admin, client.ID()) {
				if host, _, err := net.SplitHostPort(contact.ObservedAddress); err != nil || host != proxy.Outgoing {
					t.Errorf("the server saw %q, the proxy is at %s", contact.ObservedAddress, proxy.Outgoing)
				}
			}
		})
	}
}

// awaitFailures waits until a client has logged a text so often.
func awaitFailures(t *testing.T, client *harness.Client, text string, count int) {
	t.Helper()
	harness.Eventually(t, connectTime, fmt.Sprintf("%d lines with %q", count, text), func() error {
		if n := strings.Count(client.Log(), text); n < count {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// Of two servers one is dead: clients are served by the other, whichever they try first.
func TestDeadServer(t *testing.T) {
	t.Parallel()
	t.Run("that refuses connections", func(t *testing.T) {
		t.Parallel()
		tryBothOrders(t, install(t, shape{}), harness.FreeAddress(t))
	})
	t.Run("that says nothing", func(t *testing.T) {
		t.Parallel()
		hole := harness.StartBlackHole(t)
		tryBothOrders(t, install(t, shape{}), hole.Address)
		if hole.Accepted() == 0 {
			t.Error("nobody connected to the dead server")
		}
	})
}

// tryBothOrders runs clients, some at a time, until each server was the first that some client tried. All of them have to be
// served.
func tryBothOrders(t *testing.T, i *installation, dead string) {
	t.Helper()
	const group, most = 3, 24 // all alike in one of eight million runs
	admin := i.admins[0].Client(t)
	started, deadFirst := 0, 0
	for deadFirst == 0 || deadFirst == started {
		if started >= most {
			t.Fatalf("%d of %d clients tried the dead server first", deadFirst, started)
		}
		var clients []*harness.Client
		for range group {
			clients = append(clients, i.StartClient(fmt.Sprintf("fs-client-%d", started), harness.ClientOptions{
				Servers: []string{dead, i.servers[0].ClientAddress},
			}))
			started++
		}
		awaitClients(t, admin, clients)
		for _, client := range clients {
			i.echo(t, admin, client, "for "+client.Name)
			if strings.Contains(client.Log(), "contact with server "+dead) {
				deadFirst++
			}
		}
	}
	t.Logf("%d of %d clients tried the dead server first", deadFirst, started)
}

// A client whose session breaks goes back to the server that served it, if that served it for a while.
func TestLastGoodServerIsPreferred(t *testing.T) {
	t.Parallel()
	const count = 6
	// An agent takes a server for good after ten seconds of one session; the server notes the contact a little before.
	const good = 12 * time.Second
	i := install(t, shape{servers: 2})
	admin := i.admins[0].Client(t)
	relays := []*harness.Relay{harness.StartRelay(t, i.servers[0].ClientAddress), harness.StartRelay(t, i.servers[1].ClientAddress)}
	var clients []*harness.Client
	for n := range count {
		clients = append(clients, i.StartClient(fmt.Sprintf("fs-client-%d", n), harness.ClientOptions{
			Servers: []string{relays[0].Address, relays[1].Address},
		}))
	}
	awaitClients(t, admin, clients)
	before := make([]string, count)
	for n, client := range clients {
		harness.Eventually(t, connectTime, client.Name+" served for a while", func() error {
			if age := time.Since(contacts(t, admin, client.ID())[0].Timestamp.AsTime()); age < good {
				return fmt.Errorf("for %v", age)
			}
			return nil
		})
		before[n] = admin.MustListClients(t, client.ID())[0].LastContactStreamingTo
	}
	for _, relay := range relays {
		relay.Cut()
	}
	for n, client := range clients {
		harness.Eventually(t, promptly, client.Name+" back where it was", func() error {
			listed := admin.MustListClients(t, client.ID())[0]
			if met := len(contacts(t, admin, client.ID())); met != 2 || listed.LastContactStreamingTo != before[n] {
				return fmt.Errorf("after %d contacts it streams to %q, it was %q", met, listed.LastContactStreamingTo, before[n])
			}
			return nil
		})
	}
	t.Logf("%d clients went back to %v", count, before)
}
