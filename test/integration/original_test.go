package integration_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
)

// originalListener takes notifications as the original's servers do: one client a request, and 404 for anything else.
type originalListener struct {
	*httptest.Server
	behind string // the listener of the fs-server in whose place it stands

	mu    sync.Mutex
	paths map[string]bool
}

func listenAsOriginal(t *testing.T) *originalListener {
	t.Helper()
	l := &originalListener{behind: harness.FreeAddress(t), paths: make(map[string]bool)}
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	return l
}

// announce makes an fs-server tell the others this listener's address as its own.
func (l *originalListener) announce(config *componentspb.Config) {
	config.NotificationListenAddress = l.behind
	config.NotificationPublicAddress = strings.TrimPrefix(l.URL, "http://")
}

func (l *originalListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/client/") {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "use POST", http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paths[r.URL.Path] = true
}

func (l *originalListener) got(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paths[path]
}

// forward sends a notification on to the fs-server behind.
func (l *originalListener) forward(t *testing.T, path string) {
	t.Helper()
	response, err := http.Post("http://"+l.behind+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the notification is answered by %s", response.Status)
	}
}

// The original's notification wakes a client, and one of ours reaches a server that knows only that form. (G-33)
func TestOriginalNotification(t *testing.T) {
	t.Parallel()
	i := install(t, shape{
		site: func(s *harness.Site) {
			s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Hour)
		},
	})
	admin := i.admins[0].Client(t)
	original := listenAsOriginal(t)
	silent := i.StartServer("fs-server-elsewhere", original.announce)
	agent := startAgents(t, 1, agentConfig(t, silent.Target()))[0]

	admin.MustInsert(t, harness.ToClient(t, agent.ID(), "echo", "woken"))
	want := "/client/" + agent.Key().String()
	harness.Eventually(t, promptly, "notification in the original's form", func() error {
		if !original.got(want) {
			return errors.New("it has not come")
		}
		return nil
	})
	if i.answered(agent.ID(), "woken") == nil {
		t.Error("the message arrived although nobody woke its server")
	}
	original.forward(t, want)
	harness.Eventually(t, promptly, "answer", func() error { return i.answered(agent.ID(), "woken") })
}
