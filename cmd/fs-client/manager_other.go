//go:build !windows

package main

import "context"

// serveManaged runs the process; those who manage processes here use signals.
func (p *process) serveManaged(ctx context.Context) error { return p.serve(ctx) }
