// Package configpath knows where configuration files stand when no flag says so: in /etc/farspeak, or, on a machine that
// comes from the original and has nothing there, at the original's place. Nothing is ever read from both.
package configpath

import "os"

// The places, Farspeak's first, the original's second.
var (
	components = [2]string{"/etc/farspeak/components.config", "/etc/fleetspeak-server/server.components.config"}
	services   = [2]string{"/etc/farspeak/services.config", "/etc/fleetspeak-server/server.services.config"}
	client     = [2]string{"/etc/farspeak/client.config", "/etc/fleetspeak-client/client.config"}
)

// Components returns the path of the components file of fs-server and fs-admin.
func Components() string { return choose(components) }

// Services returns the path of the services file of fs-server.
func Services() string { return choose(services) }

// Client returns the path of the agent's configuration.
func Client() string { return choose(client) }

// choose returns the second path only when it exists and the first does not. A path that cannot be looked at counts as
// existing, so that the error the operator gets is about Farspeak's own file.
func choose(paths [2]string) string {
	if _, err := os.Stat(paths[0]); !os.IsNotExist(err) {
		return paths[0]
	}
	if _, err := os.Stat(paths[1]); err != nil {
		return paths[0]
	}
	return paths[1]
}
