package service

import "strings"

// On Windows an agent listens at a pipe with a random name and writes the name into a file.
const (
	pipePrefix   = `\\.\pipe\`
	pipeRandom   = 128 // characters of URL-safe base64
	pipeNameSize = len(pipePrefix) + pipeRandom
)

// isPipeName reports whether name is exactly of the form that agents make.
func isPipeName(name string) bool {
	random, found := strings.CutPrefix(name, pipePrefix)
	return found && len(random) == pipeRandom && !strings.ContainsFunc(random, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	})
}
