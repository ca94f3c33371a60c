package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
	"github.com/farspeak/farspeak/test/harness"
)

// programs is the daemon's binary.
var programs *harness.Programs

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if programs, err = harness.NewPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := programs.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return testmysql.Run(m)
}

// onEachStore runs a test with a site on SQLite, and with one on MariaDB.
func onEachStore(t *testing.T, test func(t *testing.T, site *harness.Site, db *sqlbase.Store)) {
	t.Run("SQLite", func(t *testing.T) {
		site := harness.NewSite(t, programs)
		test(t, site, openStore(t, config.Store{Dialect: config.SQLite, Path: site.Components.SqliteDatabasePath}))
	})
	t.Run("MySQL", func(t *testing.T) {
		site, dsn := harness.NewSite(t, programs), testmysql.NewDatabase(t)
		cfg := config.Store{Dialect: config.MySQL, DSN: config.NewSecret(dsn), MaxOpenConnections: 4}
		if err := database.Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		site.Components.SqliteDatabasePath, site.Components.MysqlDataSourceName = "", dsn
		test(t, site, openStore(t, cfg))
	})
}

func openStore(t *testing.T, cfg config.Store) *sqlbase.Store {
	t.Helper()
	s, err := database.Open(t.Context(), cfg, database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// server is what fs-admin sees of an fs-server: a listener for notifications, with a secret.
type server struct {
	address string
	woken   chan identity.ClientID
	refused chan identity.ClientID
	changed chan struct{}
}

const secret = "0123456789abcdef"

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{
		woken: make(chan identity.ClientID, 100), refused: make(chan identity.ClientID, 100), changed: make(chan struct{}, 100),
	}
	web := httptest.NewServer(notify.NewHandler(s, notify.Config{Secret: secret}))
	t.Cleanup(web.Close)
	s.address = web.Listener.Addr().String()
	return s
}

func (s *server) Wake(ids []identity.ClientID) {
	for _, id := range ids {
		s.woken <- id
	}
}

func (s *server) Blacklisted(ids []identity.ClientID) {
	for _, id := range ids {
		s.refused <- id
	}
}

func (s *server) HandOver(handovers []*store.Handover) {
	for _, h := range handovers {
		s.woken <- h.Message.ClientID
	}
}

func (s *server) BroadcastsChanged() { s.changed <- struct{}{} }

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}
