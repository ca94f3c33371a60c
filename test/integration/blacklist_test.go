package integration_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// cloneTime is what callers give five clones to become five clients.
const cloneTime = 20 * time.Second

// A connected client that is blacklisted is told at once, takes a new key, and goes on under it. What waited for the old
// identity is not delivered. (G-10)
func TestBlacklistConnected(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, admins: 1, dsn: testmysql.NewDatabase(t)})
	admin := i.admins[0].Client(t)
	agent := startAgents(t, 1, agentConfig(t, i.servers[0].Target()))[0]
	i.roundTrip(t, admin, agent, "before")
	old := agent.Key()

	began := time.Now()
	blacklist(t, admin, old.ID())
	harness.Eventually(t, promptly, "rekey", func() error {
		if agent.Stats().Rekeys == 0 {
			return errors.New("the client was not told")
		}
		return nil
	})
	t.Logf("a connected client was told after %v", time.Since(began))
	harness.Eventually(t, promptly, "new identity", func() error {
		if len(admin.MustListClients(t, agent.ID())) == 0 {
			return errors.New("the client has not come back")
		}
		return nil
	})
	awaitConnected(t, agent)
	i.roundTrip(t, admin, agent, "after")
	listed := admin.MustListClients(t, old.ID())
	if len(listed) != 1 || !listed[0].Blacklisted {
		t.Errorf("the old identity is listed as %v", listed)
	}
	if n := agent.Stats().Rekeys; n != 1 {
		t.Errorf("the client took %d new keys", n)
	}
	checkProtocol(t, []*peer.Agent{agent})
}

// A blacklisted client gets one rekey request and nothing else, however often it comes, until it obeys. (G-10)
func TestBlacklistedGetsOnlyRekey(t *testing.T) {
	t.Parallel()
	i := install(t, shape{})
	admin := i.admins[0].Client(t)
	key := newKey(t)
	poller := i.servers[0].Target().NewPoller(key)
	defer poller.Close()
	poll := func() *fspb.ContactData {
		reply, err := poller.Poll(t.Context(), emptyContact(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	poll()
	admin.MustInsert(t, harness.ToClient(t, key.ID(), "echo", "never"))
	blacklist(t, admin, key.ID())
	var request *fspb.Message
	harness.Eventually(t, promptly, "rekey request", func() error {
		reply := poll()
		if len(reply.Messages) != 1 || reply.Messages[0].MessageType != "RekeyRequest" {
			return fmt.Errorf("the reply is %v", reply)
		}
		request = reply.Messages[0]
		return nil
	})
	for range 3 {
		reply := poll()
		if len(reply.Messages) != 1 || reply.Messages[0].MessageType != "RekeyRequest" {
			t.Fatalf("the reply is %v", reply)
		}
		if !slices.Equal(reply.Messages[0].MessageId, request.MessageId) {
			t.Errorf("another rekey request: %v", reply)
		}
	}
	pending, err := admin.GetPendingMessages(t.Context(), &serverpb.GetPendingMessagesRequest{ClientIds: [][]byte{key.ID()}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(pending.Messages); n > 2 {
		t.Errorf("%d messages are pending, want the undelivered one and one rekey request at most", n)
	}
}

// Five clones of one client are one client; blacklisted they become five new ones.
func TestClones(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(t *testing.T, i *installation) (id []byte)
	}{
		{"fake agents, streaming", func(t *testing.T, i *installation) []byte { return startClones(t, i, 0) }},
		{"fake agents, polling", func(t *testing.T, i *installation) []byte { return startClones(t, i, shortPoll) }},
		{"real clients, streaming", func(t *testing.T, i *installation) []byte { return startRealClones(t, i) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := install(t, shape{servers: 2})
			admin := i.admins[0].Client(t)
			id := c.start(t, i)
			harness.Eventually(t, connectTime, "contacts of all clones", func() error {
				if n := len(contacts(t, admin, id)); n < 5 {
					return fmt.Errorf("%d contacts", n)
				}
				return nil
			})
			if n := len(admin.MustListClients(t)); n != 1 {
				t.Fatalf("five clones are %d clients", n)
			}
			blacklist(t, admin, id)
			harness.Eventually(t, cloneTime, "six identities", func() error {
				if n := len(admin.MustListClients(t)); n != 6 {
					return fmt.Errorf("%d identities", n)
				}
				return nil
			})
			harness.Stays(t, time.Second, "six identities", func() error {
				if n := len(admin.MustListClients(t)); n != 6 {
					return fmt.Errorf("%d identities", n)
				}
				return nil
			})
		})
	}
}

func startClones(t *testing.T, i *installation, pollInterval time.Duration) []byte {
	t.Helper()
	key := newKey(t)
	peer.Start(t, 5, func(n int) peer.Config {
		config := agentConfig(t, i.servers[n%len(i.servers)].Target())
		config.Key, config.PollInterval = key, pollInterval
		return config
	})
	return key.ID()
}

// startRealClones runs one client until it has an identity, and then five on copies of its state file.
func startRealClones(t *testing.T, i *installation) []byte {
	t.Helper()
	first := i.StartClient("original", harness.ClientOptions{Servers: []string{i.servers[0].ClientAddress}})
	id := first.ID()
	first.Terminate()
	state, err := os.ReadFile(first.StatePath)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		i.StartClient(fmt.Sprintf("clone-%d", n), harness.ClientOptions{
			Servers: []string{i.servers[n%len(i.servers)].ClientAddress}, State: state,
		})
	}
	return id
}

func contacts(t *testing.T, admin *harness.AdminClient, id []byte) []*serverpb.ClientContact {
	t.Helper()
	response, err := admin.ListClientContacts(t.Context(), &serverpb.ListClientContactsRequest{ClientId: id})
	if err != nil {
		t.Fatal(err)
	}
	return response.Contacts
}

func blacklist(t *testing.T, admin *harness.AdminClient, id []byte) {
	t.Helper()
	if _, err := admin.BlacklistClient(t.Context(), &serverpb.BlacklistClientRequest{ClientId: id}); err != nil {
		t.Fatal(err)
	}
}
