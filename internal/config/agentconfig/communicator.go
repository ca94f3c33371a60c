package agentconfig

import (
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
)

// CommunicatorFile is the name of the optional file in the configuration directory.
const CommunicatorFile = "communicator.txt"

// Communicator says how the agent talks to servers. Negative durations are the operator's own wish.
type Communicator struct {
	MaxPollDelay       time.Duration // longest wait between polls
	MaxBufferDelay     time.Duration // longest wait of a queued message for the next poll
	MinFailureDelay    time.Duration // wait after no server could be reached
	FailureSuicideTime time.Duration // the agent ends after this long without a successful contact
	Compress           bool          // deflate what goes to servers
	PreferHTTP2        bool
}

// DefaultCommunicator is used when there is no file.
func DefaultCommunicator() Communicator { return newCommunicator(&clientpb.CommunicatorConfig{}) }

// Communicator reads the file, leniently. What it returns can be used in any case: with an error, which is worth a line in
// the log, it is the default. A missing file is no error, unless the registry names it.
func (c *Config) Communicator() (Communicator, error) {
	path, err := c.place().communicator()
	if path == "" || err != nil {
		return DefaultCommunicator(), err
	}
	text, err := textpb.ReadFile(path)
	var pb clientpb.CommunicatorConfig
	if err == nil {
		err = textpb.ParseLenient(path, text, &pb)
	}
	if err != nil {
		return DefaultCommunicator(), err
	}
	return newCommunicator(&pb), nil
}

// newCommunicator puts the original's defaults in the place of zeros.
func newCommunicator(pb *clientpb.CommunicatorConfig) Communicator {
	seconds := func(n, standard int32) time.Duration {
		if n == 0 {
			n = standard
		}
		return time.Duration(n) * time.Second
	}
	return Communicator{
		MaxPollDelay:       seconds(pb.GetMaxPollDelaySeconds(), 300),
		MaxBufferDelay:     seconds(pb.GetMaxBufferDelaySeconds(), 5),
		MinFailureDelay:    seconds(pb.GetMinFailureDelaySeconds(), 300),
		FailureSuicideTime: seconds(pb.GetFailureSuicideTimeSeconds(), 7*24*60*60),
		Compress:           pb.GetCompression() == fspb.CompressionAlgorithm_COMPRESSION_DEFLATE,
		PreferHTTP2:        pb.GetPreferHttp2(),
	}
}
