package services_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var errDown = fmt.Errorf("fake: %w", store.ErrUnavailable)

// fakeStore keeps what a store would, by the clock of the test. Its fields may be changed while nothing uses it.
type fakeStore struct {
	mu sync.Mutex

	down      bool // every call fails
	downFor   map[string]bool
	slow      map[string]time.Duration // what a method takes
	max       int                      // largest serialized message; 0 means any
	clients   map[identity.ClientID]*store.Client
	rows      map[identity.MessageID]*row
	results   map[identity.MessageID]store.ServiceResult
	dead      map[identity.MessageID]store.ServiceResult
	acks      []store.Ack
	ackAnswer func(store.Ack) error
	infos     []store.ClientInfo
	usage     []store.ResourceUsage
	calls     map[string]int
	released  []string
}

// row is a message of the backlog.
type row struct {
	store.BacklogMessage
	due   time.Time
	owner string
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		downFor: map[string]bool{},
		slow:    map[string]time.Duration{},
		clients: map[identity.ClientID]*store.Client{},
		rows:    map[identity.MessageID]*row{},
		results: map[identity.MessageID]store.ServiceResult{},
		dead:    map[identity.MessageID]store.ServiceResult{},
		calls:   map[string]int{},
	}
}

// enter begins a method; the returned function ends it.
func (f *fakeStore) enter(method string) (func(), error) {
	f.mu.Lock()
	if takes := f.slow[method]; takes > 0 {
		f.mu.Unlock()
		time.Sleep(takes)
		f.mu.Lock()
	}
	f.calls[method]++
	if f.down || f.downFor[method] {
		f.mu.Unlock()
		return nil, errDown
	}
	return f.mu.Unlock, nil
}

func (f *fakeStore) fits(m *fspb.Message) error {
	if f.max > 0 && proto.Size(m) > f.max {
		return fmt.Errorf("fake: %w: too large", store.ErrInvalid)
	}
	return nil
}

func (f *fakeStore) AddBacklog(_ context.Context, messages []store.BacklogMessage, dueIn time.Duration, max uint64) ([]error, error) {
	leave, err := f.enter("AddBacklog")
	if err != nil {
		return nil, err
	}
	defer leave()
	errs := make([]error, len(messages))
	for i, m := range messages {
		_, known := f.results[m.ID]
		switch _, waits := f.rows[m.ID]; {
		case f.fits(m.Message) != nil:
			errs[i] = f.fits(m.Message)
		case known || waits:
		case max > 0 && len(f.rows) >= int(max):
			errs[i] = store.ErrQueueFull
		default:
			m.Message = proto.CloneOf(m.Message)
			f.rows[m.ID] = &row{BacklogMessage: m, due: time.Now().Add(dueIn)}
		}
	}
	return errs, nil
}

func (f *fakeStore) ClaimBacklog(_ context.Context, owner string, names []string, limit int, lease time.Duration) ([]store.BacklogMessage, error) {
	leave, err := f.enter("ClaimBacklog")
	if err != nil {
		return nil, err
	}
	defer leave()
	var due []*row
	for _, r := range f.rows {
		if slices.Contains(names, r.Service) && !r.due.After(time.Now()) {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *row) int {
		return cmp.Or(a.due.Compare(b.due), bytes.Compare(a.ID[:], b.ID[:]))
	})
	var claimed []store.BacklogMessage
	for _, r := range due[:min(limit, len(due))] {
		m := r.BacklogMessage
		m.Message = proto.CloneOf(m.Message)
		claimed = append(claimed, m)
		r.Attempts, r.due, r.owner = r.Attempts+1, time.Now().Add(lease), owner
	}
	return claimed, nil
}

func (f *fakeStore) FinishBacklog(_ context.Context, owner string, outcomes []store.BacklogOutcome) error {
	leave, err := f.enter("FinishBacklog")
	if err != nil {
		return err
	}
	defer leave()
	for _, o := range outcomes {
		r := f.rows[o.ID]
		if r == nil || r.owner != owner {
			continue
		}
		result := store.ServiceResult{ID: o.ID, Message: r.Message, Service: o.Service, Failed: o.Dead, Reason: o.Reason}
		switch {
		case o.Dead:
			f.results[o.ID], f.dead[o.ID] = result, result
			delete(f.rows, o.ID)
		case o.Done:
			if o.Keep {
				f.results[o.ID] = result
			}
			delete(f.rows, o.ID)
		default:
			r.owner, r.due = "", time.Now().Add(o.RetryIn)
		}
	}
	return nil
}

func (f *fakeStore) ReleaseBacklog(_ context.Context, owner string) error {
	leave, err := f.enter("ReleaseBacklog")
	if err != nil {
		return err
	}
	defer leave()
	f.released = append(f.released, owner)
	for _, r := range f.rows {
		if r.owner == owner {
			r.owner, r.due = "", time.Now()
		}
	}
	return nil
}

func (f *fakeStore) BacklogStatus(context.Context) ([]store.BacklogStatus, error) {
	leave, err := f.enter("BacklogStatus")
	if err != nil {
		return nil, err
	}
	defer leave()
	sums := map[string]store.BacklogStatus{}
	for _, r := range f.rows {
		s := sums[r.Service]
		sums[r.Service] = store.BacklogStatus{
			Service: r.Service, Depth: s.Depth + 1, Bytes: s.Bytes + int64(proto.Size(r.Message)),
			Oldest: max(time.Minute, s.Oldest, time.Since(r.due)),
		}
	}
	var list []store.BacklogStatus
	for _, s := range sums {
		list = append(list, s)
	}
	return list, nil
}

func (f *fakeStore) FailUnserved(_ context.Context, service string, age time.Duration, reason string, limit int) (int64, error) {
	leave, err := f.enter("FailUnserved")
	if err != nil {
		return 0, err
	}
	defer leave()
	var long []store.ServiceResult
	for _, r := range f.rows {
		waits := time.Since(r.due) >= age
		switch {
		case r.Service == service && r.Attempts > 0 && !waits:
			return 0, nil
		case r.Service == service && waits && len(long) < limit:
			long = append(long, store.ServiceResult{ID: r.ID, Message: r.Message, Service: service, Failed: true, Reason: reason})
		}
	}
	for _, result := range long {
		f.results[result.ID], f.dead[result.ID] = result, result
		delete(f.rows, result.ID)
	}
	return int64(len(long)), nil
}

func (f *fakeStore) RecordServiceResults(_ context.Context, results []store.ServiceResult) error {
	leave, err := f.enter("RecordServiceResults")
	if err != nil {
		return err
	}
	defer leave()
	for _, r := range results {
		if err := f.fits(r.Message); err != nil {
			return err
		}
	}
	for _, r := range results {
		f.results[r.ID] = r
		if r.Failed {
			f.dead[r.ID] = r
		}
	}
	return nil
}

func (f *fakeStore) GetClients(_ context.Context, ids []identity.ClientID) (map[identity.ClientID]*store.Client, error) {
	leave, err := f.enter("GetClients")
	if err != nil {
		return nil, err
	}
	defer leave()
	found := map[identity.ClientID]*store.Client{}
	for _, id := range ids {
		if c := f.clients[id]; c != nil {
			found[id] = c
		}
	}
	return found, nil
}

func (f *fakeStore) SetClientInfo(_ context.Context, infos []store.ClientInfo) ([]error, error) {
	leave, err := f.enter("SetClientInfo")
	if err != nil {
		return nil, err
	}
	defer leave()
	errs := make([]error, len(infos))
	for i, info := range infos {
		if f.clients[info.ClientID] == nil {
			errs[i] = store.ErrUnknownClient
			continue
		}
		f.infos = append(f.infos, info)
	}
	return errs, nil
}

func (f *fakeStore) AckMessages(_ context.Context, acks []store.Ack) ([]error, error) {
	leave, err := f.enter("AckMessages")
	if err != nil {
		return nil, err
	}
	defer leave()
	errs := make([]error, len(acks))
	for i, a := range acks {
		if f.ackAnswer != nil {
			errs[i] = f.ackAnswer(a)
		}
		if errs[i] == nil {
			f.acks = append(f.acks, a)
		}
	}
	return errs, nil
}

func (f *fakeStore) AddResourceUsage(_ context.Context, records []store.ResourceUsage) ([]error, error) {
	leave, err := f.enter("AddResourceUsage")
	if err != nil {
		return nil, err
	}
	defer leave()
	errs := make([]error, len(records))
	for i, r := range records {
		if f.clients[r.ClientID] == nil {
			errs[i] = store.ErrUnknownClient
			continue
		}
		f.usage = append(f.usage, r)
	}
	return errs, nil
}

// touched returns how often the store was called, measurements aside.
func (f *fakeStore) touched() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for method, calls := range f.calls {
		if method != "BacklogStatus" {
			n += calls
		}
	}
	return n
}

// called returns how often a method was called.
func (f *fakeStore) called(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// set changes the store while it is in use.
func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// counts returns the sizes of backlog and dead letters.
func (f *fakeStore) counts() (waiting, dead int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rows), len(f.dead)
}
