package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
	"github.com/farspeak/farspeak/sdk/backend"
)

// request is one question to one client.
type request struct {
	id     []byte // of the message
	client []byte
	fact   fact
	args   []string

	// Guarded by the ledger's mutex.
	submitted time.Time
	took      time.Duration
	answer    []string
	failure   string
	done      bool
}

// ledger knows what was asked and what came back.
//
// Delivery is at least once: an answer may come twice, and may belong to an earlier run of this program. An answer
// carries no reference to the message that caused it, so each service prints the request ID that it was given.
type ledger struct {
	requests []*request // static

	mu    sync.Mutex
	byID  map[string]*request // open ones, by message ID
	empty chan struct{}       // closed when none is open
}

// newLedger plans a request for each fact of each client. The message IDs are fixed here, before the first try: however
// often a message is submitted, it is one message.
func newLedger(clients [][]byte, files []string) *ledger {
	l := &ledger{byID: map[string]*request{}, empty: make(chan struct{})}
	for _, client := range clients {
		for _, f := range facts {
			id := make([]byte, backend.MessageIDSize)
			rand.Read(id) // never fails
			r := &request{id: id, client: client, fact: f, args: append([]string{hex.EncodeToString(id)}, f.args(files)...)}
			l.requests = append(l.requests, r)
			l.byID[string(id)] = r
		}
	}
	return l
}

// take takes an answer. Nil means that nobody need keep it any longer.
func (l *ledger) take(_ context.Context, m *fspb.Message) error {
	output := &stdinpb.OutputMessage{}
	if err := m.GetData().UnmarshalTo(output); err != nil {
		return backend.Permanent(fmt.Errorf("not the answer of a Stdin service: %w", err))
	}
	text, rest, ok := splitAnswer(output.GetStdout())
	id, err := hex.DecodeString(text)
	if !ok || err != nil {
		return backend.Permanent(errors.New("the answer names no request"))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.byID[string(id)]
	if r == nil || r.fact.service != m.GetDestination().GetServiceName() || !bytes.Equal(r.client, m.GetSource().GetClientId()) {
		return nil // a repetition, or of another run; in any case dealt with
	}
	if r.answer = r.fact.read(rest); len(r.answer) == 0 {
		r.failure = fmt.Sprintf("the command printed nothing of use; its errors: %q", output.GetStderr())
	}
	l.close(r)
	return nil
}

// close ends a request. The caller holds mu.
func (l *ledger) close(r *request) {
	r.done, r.took = true, time.Since(r.submitted)
	delete(l.byID, string(r.id))
	if len(l.byID) == 0 {
		close(l.empty)
	}
}

// fail ends a request that will get no answer.
func (l *ledger) fail(r *request, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.done {
		return
	}
	r.failure = reason
	l.close(r)
}

// open returns the requests that wait.
func (l *ledger) open() []*request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.requests), func(r *request) bool { return r.done })
}

// print shows all requests. Its error says that not all were answered.
func (l *ledger) print(out io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CLIENT\tFACT\tTOOK\tANSWER")
	var times []time.Duration
	for _, r := range l.requests {
		took, lines := "-", []string{"no answer"}
		switch {
		case r.failure != "":
			lines = []string{"failed: " + r.failure}
		case r.done:
			times = append(times, r.took)
			took, lines = r.took.Round(10*time.Microsecond).String(), r.answer
		}
		name := strings.TrimPrefix(r.fact.service, "inventory-")
		fmt.Fprintf(table, "%x\t%s\t%s\t%s\n", r.client, name, took, strings.Join(lines, "\n\t\t\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return summarize(out, times, len(l.requests))
}

func summarize(out io.Writer, times []time.Duration, asked int) error {
	if len(times) > 0 {
		slices.Sort(times)
		fmt.Fprintf(out, "\n%d of %d answers; submit to answer: fastest %v, median %v, slowest %v\n", len(times), asked,
			times[0].Round(10*time.Microsecond), times[len(times)/2].Round(10*time.Microsecond), times[len(times)-1].Round(10*time.Microsecond))
	}
	if len(times) < asked {
		return fmt.Errorf("%d of %d answers are missing", asked-len(times), asked)
	}
	return nil
}
