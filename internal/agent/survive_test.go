package agent_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/spool"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Messages that found no server are sent by the next agent on the same files, under the same IDs (G-11).
func TestMessagesOfAnEarlierAgent(t *testing.T) {
	s := newFakeServer(t)
	dir := t.TempDir()
	change := func(c *agent.Config) {
		c.State = agent.FileState(filepath.Join(dir, "state"))
		c.Spool = spool.Config{Dir: filepath.Join(dir, "state.spool")}
	}
	unreachable := func(c *agent.Config) {
		change(c)
		c.Link.Servers = []string{"127.0.0.1:1"}
	}
	r := start(t, s, unreachable, "numbers")
	for len(r.agent.Status().Services) < 2 { // system and numbers; it starts beside us
		<-time.After(time.Millisecond)
	}
	for n := range byte(150) { // more than fit memory
		r.send("numbers", n, fspb.Message_MEDIUM)
	}
	if got := r.agent.Status().Outbox; got.Spool.Messages != 150 || got.Classes[1].Messages != 150 || got.Spool.Error != "" {
		t.Errorf("outbox is %+v, %+v", got, got.Spool)
	}
	r.stop()
	if err := r.exit(); err != nil {
		t.Fatal(err)
	}

	start(t, s, change, "numbers")
	n := receive(t, s.sessions, "a session")
	got := ids(n.first)
	n.answer()
	for records := n.ackAll(); len(got) < 150; {
		got = append(got, ids(receive(t, records, "a record"))...)
	}
	if !slices.IsSorted(got) || len(got) != 150 {
		t.Errorf("got %v", got)
	}
}

func ids(r record) (out []byte) {
	for _, m := range find(r, "numbered") {
		out = append(out, m.SourceMessageId...)
	}
	return out
}
