package service

import (
	"context"
	"net"
)

// OpenSocketForTest is OpenSocket with connections that dial makes.
func OpenSocketForTest(cfg SocketConfig, dial func(context.Context) (net.Conn, error)) *Socket {
	return openSocket(cfg, func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) })
}

// IsPipeName is looked at from outside.
var IsPipeName = isPipeName

// Limits that tests reach.
const (
	KeptBytes  = keptBytes
	InboxSize  = inboxSize
	FreeBytes  = freeBytes
	InboxBytes = inboxBytes
)
