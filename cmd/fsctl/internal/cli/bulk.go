package cli

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
)

// bulkParallelism is how many calls of one command run at once. fs-admin commits what comes together in one transaction,
// so that many at once cost it little more than one.
const bulkParallelism = 64

// bulk calls do for each item, some at once, and shows each outcome as soon as it is there, in no order. Show returns
// whether the item failed; other items go on. An error that would hit every further call too ends the whole.
func bulk[T, R any](ctx context.Context, a *app, what string, items []T,
	do func(context.Context, T) (R, error), show func(T, R, error) (failed bool, err error),
) error {
	progress := render.NewProgress(a.Err, what, len(items))
	defer progress.Close()
	var (
		mu     sync.Mutex // guards failed, progress and whatever show touches
		failed int
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bulkParallelism)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			result, err := do(ctx, item)
			if adminapi.IsFatal(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			progress.Step()
			bad, err := show(item, result, err)
			if bad {
				failed++
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%s: %d of %d failed", what, failed, len(items))
	}
	return nil
}

// errorText is the text of an error for a result, empty for none.
func errorText(api *adminapi.Client, err error) string {
	if err == nil {
		return ""
	}
	return api.Explain(err).Error()
}
