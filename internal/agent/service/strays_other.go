//go:build !linux

package service

// closeStrays has nothing to do where descriptors are not inherited by default, or cannot be marked at once.
func closeStrays() {}
