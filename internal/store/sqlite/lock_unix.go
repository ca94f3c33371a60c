//go:build unix

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockRetry is how often a lock that another process holds is tried again.
const lockRetry = 20 * time.Millisecond

// lockDirectory takes an exclusive lock on a directory: it needs no file of its own, which would stay behind.
func lockDirectory(ctx context.Context, directory string) (unlock func(), err error) {
	f, err := os.Open(directory)
	if err != nil {
		return nil, fmt.Errorf("lock for migration: %w", err)
	}
	ticker := time.NewTicker(lockRetry)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock for migration: %s: %w", directory, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock for migration: %s: %w", directory, ctx.Err())
		}
	}
}
