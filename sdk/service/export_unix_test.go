//go:build unix

package service

// LongestPath is looked at from outside.
var LongestPath = longestPath
