package harness

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// Client is a running fs-client, with the service "echo": a Stdin service that answers with its input.
type Client struct {
	*Process
	// StatePath is the file with its key.
	StatePath string
}

// ClientOptions say how an fs-client differs from the usual one.
type ClientOptions struct {
	// Servers are host:port, tried in order.
	Servers []string
	// Labels are claimed.
	Labels []string
	// State is what stands in the state file at the start; empty makes a new identity.
	State []byte
	// Polling makes it poll about once a second in place of streaming.
	Polling bool
	// PreferHTTP2 offers HTTP/2 first.
	PreferHTTP2 bool
	// Deflate compresses what it sends.
	Deflate bool
	// Services run beside "echo".
	Services []*fspb.ClientServiceConfig
	// Adjust may change its configuration file; nil leaves it.
	Adjust func(*genericpb.Config)
}

// StartClient runs an fs-client in a folder of its own.
func (s *Site) StartClient(name string, options ClientOptions) *Client {
	s.tb.Helper()
	dir := filepath.Join(s.Dir, name)
	for _, sub := range []string{"services", "textservices"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			s.tb.Fatal(err)
		}
	}
	state := filepath.Join(dir, "state")
	if len(options.State) > 0 {
		if err := os.WriteFile(state, options.State, 0o600); err != nil {
			s.tb.Fatal(err)
		}
	}
	s.write(filepath.Join(name, "communicator.txt"), options.communicator())
	echo, err := anypb.New(&stdinpb.Config{Cmd: "cat"})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.write(filepath.Join(name, "textservices", "echo.service"),
		&fspb.ClientServiceConfig{Name: "echo", Factory: "Stdin", Config: echo})
	for _, service := range options.Services {
		s.write(filepath.Join(name, "textservices", service.Name+".service"), service)
	}
	config := &genericpb.Config{
		TrustedCerts: s.certificates.certificate,
		Server:       options.Servers,
		ClientLabel:  options.Labels,
		Streaming:    !options.Polling,
		PersistenceHandler: &genericpb.Config_FilesystemHandler{FilesystemHandler: &genericpb.FilesystemHandler{
			ConfigurationDirectory: dir, StateFile: state,
		}},
	}
	if options.Adjust != nil {
		options.Adjust(config)
	}
	path := s.write(filepath.Join(name, "client.config"), config)
	return &Client{
		Process:   Start(s.tb, dir, name, s.programs.Path(s.tb, "fs-client"), "--logtostderr", "--config", path),
		StatePath: state,
	}
}

func (o ClientOptions) communicator() *clientpb.CommunicatorConfig {
	config := &clientpb.CommunicatorConfig{
		MaxPollDelaySeconds: 1, MaxBufferDelaySeconds: 1, MinFailureDelaySeconds: 1, PreferHttp2: o.PreferHTTP2,
	}
	if o.Deflate {
		config.Compression = fspb.CompressionAlgorithm_COMPRESSION_DEFLATE
	}
	return config
}

// ID is the client ID in the state file, 8 bytes; it waits until there is one.
func (c *Client) ID() []byte {
	c.tb.Helper()
	var id []byte
	Eventually(c.tb, startTimeout, c.Name+" has an identity", func() (err error) {
		id, err = c.readID()
		return err
	})
	return id
}

func (c *Client) readID() ([]byte, error) {
	b, err := os.ReadFile(c.StatePath)
	if err != nil {
		return nil, err
	}
	state := &clientpb.ClientState{}
	if err := proto.Unmarshal(b, state); err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(state.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("the key in the state file: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(spki)
	return digest[:8], nil
}

// EchoRequest is a message that an fs-client's service "echo" answers with its text.
func (c *Client) EchoRequest(text string) *fspb.Message {
	c.tb.Helper()
	m := ToClient(c.tb, c.ID(), "echo", text)
	m.MessageType = "StdinServiceInputMessage"
	input, err := anypb.New(&stdinpb.InputMessage{Input: []byte(text)})
	if err != nil {
		c.tb.Fatal(err)
	}
	m.Data = input
	return m
}

// EchoReply is the message in which an fs-client answered a text, or nil.
func (b *Backend) EchoReply(client []byte, text string) *fspb.Message {
	return b.Find(func(m *fspb.Message) bool {
		output := &stdinpb.OutputMessage{}
		return string(m.Source.ClientId) == string(client) && m.Data.MessageIs(output) &&
			m.Data.UnmarshalTo(output) == nil && string(output.Stdout) == text
	})
}
