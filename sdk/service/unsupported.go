//go:build !unix && !windows

package service

// An agent runs on Unix and Windows only. This line is what a compiler for another system says about it.
var _ = package_service_needs_unix_or_windows
