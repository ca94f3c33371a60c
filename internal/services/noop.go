package services

import (
	"context"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// noop takes everything.
type noop struct{}

func (noop) Process(context.Context, *fspb.Message) error { return nil }
func (noop) Close() error                                 { return nil }
