package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// maxRunBytes bounds the messages of one commit.
	maxRunBytes = 8 << 20
	// maxRunAcks bounds the acknowledgements of one commit.
	maxRunAcks = 1000
	// writeTimeout bounds one commit.
	writeTimeout = 30 * time.Second
	// firstRetry is the least delay before a message of the backlog is tried for the first time.
	firstRetry = time.Second
)

// writes is everything that this package writes: one batcher for each kind. They outlive those who feed them.
type writes struct {
	roomWait time.Duration
	// added tells the backlog that messages were added here, due after that long.
	added chan time.Duration

	backlog *batch.Batcher[store.BacklogMessage, error]
	results *batch.Batcher[store.ServiceResult, error]
	done    *batch.Batcher[store.BacklogOutcome, error]
	acks    *batch.Batcher[[]store.Ack, []error] // the acks of one message
	infos   *batch.Batcher[store.ClientInfo, error]
	usage   *batch.Batcher[store.ResourceUsage, error]

	closers []func(context.Context) error // of those made so far
}

func newWrites(cfg *Config) (*writes, error) {
	w := &writes{roomWait: cfg.RoomWait, added: make(chan time.Duration, 1)}
	faults := []error{
		start(w, cfg, &w.backlog, batch.Config[store.BacklogMessage, error]{
			Name: "backlog", Run: w.addBacklog(cfg), MaxBytes: maxRunBytes,
			Size: func(b store.BacklogMessage) int { return proto.Size(b.Message) },
		}),
		start(w, cfg, &w.results, batch.Config[store.ServiceResult, error]{
			Name: "service_results", Run: recordResults(cfg.Store), MaxBytes: maxRunBytes,
			Size: func(r store.ServiceResult) int { return proto.Size(r.Message) },
		}),
		start(w, cfg, &w.done, batch.Config[store.BacklogOutcome, error]{
			Name: "backlog_outcomes", Run: finishBacklog(cfg.Store, cfg.ServerID),
		}),
		start(w, cfg, &w.acks, batch.Config[[]store.Ack, []error]{
			Name: "acks", Run: ackMessages(cfg.Store, cfg.Hooks.Acknowledged), MaxBytes: maxRunAcks,
			Size: func(acks []store.Ack) int { return len(acks) }, // counted, not weighed
		}),
		start(w, cfg, &w.infos, batch.Config[store.ClientInfo, error]{Name: "client_infos", Run: setClientInfo(cfg.Store, cfg.Hooks.LabelsChanged)}),
		start(w, cfg, &w.usage, batch.Config[store.ResourceUsage, error]{Name: "resource_usage", Run: cfg.Store.AddResourceUsage}),
	}
	if err := errors.Join(faults...); err != nil {
		return nil, errors.Join(err, w.close(context.Background()))
	}
	return w, nil
}

// start makes one batcher and remembers how to close it.
func start[T, R any](w *writes, cfg *Config, into **batch.Batcher[T, R], bc batch.Config[T, R]) error {
	bc.Split, bc.Timeout, bc.Registerer = splits, writeTimeout, cfg.Registerer
	b, err := batch.New(bc)
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	*into = b
	w.closers = append(w.closers, b.Close)
	return nil
}

// splits says whether a failed commit may be the fault of one of its rows.
func splits(err error) bool {
	return !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}

func (w *writes) close(ctx context.Context) error {
	var faults []error
	for _, closeOne := range w.closers {
		faults = append(faults, closeOne(ctx))
	}
	return errors.Join(faults...)
}

// addBacklog spreads the first retries of what failed together.
func (w *writes) addBacklog(cfg *Config) func(context.Context, []store.BacklogMessage) ([]error, error) {
	return func(ctx context.Context, messages []store.BacklogMessage) ([]error, error) {
		dueIn := firstRetry + rand.N(firstRetry)
		errs, err := cfg.Store.AddBacklog(ctx, messages, dueIn, cfg.BacklogMaxMessages)
		if err == nil {
			select {
			case w.added <- dueIn:
			default: // the backlog is about to look anyway
			}
		}
		return errs, err
	}
}

func recordResults(st resultStore) func(context.Context, []store.ServiceResult) ([]error, error) {
	return func(ctx context.Context, results []store.ServiceResult) ([]error, error) {
		return make([]error, len(results)), st.RecordServiceResults(ctx, results)
	}
}

func finishBacklog(st backlogStore, owner string) func(context.Context, []store.BacklogOutcome) ([]error, error) {
	return func(ctx context.Context, outcomes []store.BacklogOutcome) ([]error, error) {
		return make([]error, len(outcomes)), st.FinishBacklog(ctx, owner, outcomes)
	}
}

// ackMessages makes one list of the acks of several messages and takes the answer apart again.
func ackMessages(st reportStore, acknowledged func([]store.MessageRef)) func(context.Context, [][]store.Ack) ([][]error, error) {
	return func(ctx context.Context, lists [][]store.Ack) ([][]error, error) {
		var all []store.Ack
		for _, list := range lists {
			all = append(all, list...)
		}
		errs, err := st.AckMessages(ctx, all)
		if err != nil {
			return nil, err
		}
		if len(errs) != len(all) {
			return nil, fmt.Errorf("%d answers for %d acks", len(errs), len(all))
		}
		if acknowledged != nil {
			acknowledged(completed(all, errs))
		}
		answers := make([][]error, len(lists))
		for i, list := range lists {
			answers[i], errs = errs[:len(list):len(list)], errs[len(list):]
		}
		return answers, nil
	}
}

// completed are the messages whose acks were taken.
func completed(acks []store.Ack, errs []error) []store.MessageRef {
	refs := make([]store.MessageRef, 0, len(acks))
	for i, ack := range acks {
		if errs[i] == nil {
			refs = append(refs, ack.MessageRef)
		}
	}
	return refs
}

// setClientInfo tells of labels in the order in which they were reported, after their commit.
func setClientInfo(st clientStore, changed func(identity.ClientID, []store.Label)) func(context.Context, []store.ClientInfo) ([]error, error) {
	return func(ctx context.Context, infos []store.ClientInfo) ([]error, error) {
		errs, err := st.SetClientInfo(ctx, infos)
		if err != nil || changed == nil {
			return errs, err
		}
		for i, err := range errs {
			if err == nil {
				changed(infos[i].ClientID, clientLabels(infos[i].Labels))
			}
		}
		return errs, nil
	}
}

// clientLabels are labels as the store returns them.
func clientLabels(texts []string) []store.Label {
	labels := make([]store.Label, len(texts))
	for i, text := range texts {
		labels[i] = store.Label{Service: "client", Label: text}
	}
	return labels
}
