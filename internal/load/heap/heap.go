// Package heap keeps the garbage collector of a load tool from taking the cores that the measured programs need.
//
// The collector runs when the heap has doubled. With a few hundred clients a few MiB live, and all that is made and thrown
// away in a second is a multiple of it: the collector would run dozens of times a second. With a floor it runs when as much
// garbage has gathered as the floor is large, and no later than before once more than that lives.
package heap

import (
	"os"
	"runtime"
)

// floor is how much garbage may gather before the first collection, in bytes.
const floor = 32 << 20

// Floor keeps the floor until release is called. Where GOGC is set, that counts and nothing is done.
func Floor() (release func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	// The collector counts it as living. Nothing is ever written to it, so it takes no memory of the machine.
	ballast := make([]byte, floor)
	return func() { runtime.KeepAlive(ballast) }
}
