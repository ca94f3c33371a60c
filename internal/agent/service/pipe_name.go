package service

import (
	"crypto/rand"
	"encoding/base64"
)

// pipePrefix is where named pipes are on Windows.
const pipePrefix = `\\.\pipe\`

// newPipeName makes a name that cannot be guessed: 96 random bytes as 128 characters.
func newPipeName() string {
	random := make([]byte, 96)
	rand.Read(random)
	return pipePrefix + base64.URLEncoding.EncodeToString(random)
}
