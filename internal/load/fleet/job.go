package fleet

import (
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// Defaults of a Job.
const (
	DefaultService      = "load"
	DefaultDials        = 64
	DefaultWindow       = 1
	defaultReconnectMin = time.Second     // as fs-client's
	defaultReconnectMax = 5 * time.Minute // as fs-client's
)

// Job says what a fleet is and where it connects to.
type Job struct {
	// Servers are host:port of any number of servers; clients are spread over them, and go to the next one when one fails.
	Servers []string
	// TrustedCerts are the authorities of the servers' certificates, PEM. Insecure takes any certificate instead.
	TrustedCerts string
	Insecure     bool
	// ServerName is checked in the certificate in place of the host.
	ServerName string
	// Sources are local IP addresses to connect from, in turn; none leaves the choice to the system.
	Sources []string
	// Classic agrees TLS keys by X25519 alone, as the original's agents do: they are built for a language version whose
	// default has no ML-KEM. It costs both ends less.
	Classic bool
	// Resume keeps TLS session tickets, which agents of the original do not, and uses them as fs-client does.
	Resume bool

	// KeyFile has the keys; this fleet uses Count of them from First on.
	KeyFile      string
	First, Count int
	// Labels are claimed by every client.
	Labels []string
	// Service is the service on the client side that messages come for.
	Service string
	// Run tells the messages of this run from those of others.
	Run uint64

	// Dials is how many connections are opened at once, ConnectRate how many a second; 0 is as many as can be.
	Dials       int
	ConnectRate float64
	// After a session that broke, or a failed dial, the delay is random up to ReconnectMin, half as much again with each
	// further failure in a row, up to ReconnectMax.
	ReconnectMin, ReconnectMax time.Duration

	// Window is how many records of a client may wait for their acknowledgement.
	Window int
	// AckDelay is how long acknowledgements of received messages are held back to gather; fs-client's is 0, the original's
	// agent takes 1 s.
	AckDelay time.Duration
}

func (j *Job) setDefaults() {
	setDefault(&j.Service, DefaultService)
	setDefault(&j.Dials, DefaultDials)
	setDefault(&j.Window, DefaultWindow)
	setDefault(&j.ReconnectMin, defaultReconnectMin)
	setDefault(&j.ReconnectMax, defaultReconnectMax)
}

func setDefault[T comparable](value *T, otherwise T) {
	if *value == *new(T) {
		*value = otherwise
	}
}

// Sending is what clients are told to send: messages to a service on the server side.
type Sending struct {
	Service string
	// Size of each payload in bytes, at least StampSize.
	Size int
	// Batch is how many messages go into one record at most.
	Batch int
	// Closed makes each client send as fast as Window allows.
	Closed bool
	// Rate is how many messages all clients of the fleet send a second, evenly spaced, in turn. Group is how many of them are
	// due in one client at once, as when its service has a result in parts; 0 is 1.
	Rate  float64
	Group int
	// Replies is how many messages a client sends for each load message that it receives, ReplyDelay the longest time
	// until then; it is random.
	Replies    int
	ReplyDelay time.Duration
}

func (s *Sending) setDefaults() {
	s.Size = max(s.Size, StampSize)
	s.Batch = min(max(s.Batch, 1), wire.MaxMessagesPerRecord)
	s.Group = max(s.Group, 1)
}
