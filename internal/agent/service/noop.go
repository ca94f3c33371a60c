package service

import (
	"context"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// noop takes everything and does nothing.
type noop struct{}

// NewNOOP makes a service that completes every message. Its configuration is not looked at.
func NewNOOP(Spec) (Service, error) { return noop{}, nil }

func (noop) Process(context.Context, *fspb.Message) error { return nil }

func (noop) Stop(context.Context) {}
