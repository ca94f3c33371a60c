// Package adminapi connects fsctl to an admin daemon, ours or the original's: where it is, how the connection is
// secured, what is retried, and what the failures mean to the person at the terminal.
//
// A Client holds one connection that is made at the first call. It belongs to the caller of Dial, who closes it.
package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// DefaultAddress is where an admin daemon usually listens.
const DefaultAddress = "localhost:9000"

// maxReceive bounds one answer. The original's admin daemon lists all clients in one message, and so does ours.
const maxReceive = 1 << 30

// streamWindow and connectionWindow are how many bytes of an answer, and of all answers, may be on their way. With fixed windows the
// library does not measure the line, which takes a ping and its answer with nearly every call: fsctl load makes thousands a second.
const (
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// retryPolicy repeats the calls that may be repeated, long enough to live through the restart of a daemon behind a
// balancer and short enough for somebody who waits for an error.
const retryPolicy = `{"methodConfig": [{
	"name": [
		{"service": "fleetspeak.server.Admin", "method": "InsertMessage"},
		{"service": "fleetspeak.server.Admin", "method": "GetMessageStatus"},
		{"service": "fleetspeak.server.Admin", "method": "DeletePendingMessages"},
		{"service": "fleetspeak.server.Admin", "method": "BlacklistClient"}
	],
	"retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

// Options say how to reach the daemon.
type Options struct {
	// Address is host:port, or unix:PATH.
	Address string
	// TLS asks for TLS with the system's authorities. Any of the four fields below asks for it too.
	TLS bool
	// CAFile has the PEM certificates of the authorities to trust in place of the system's.
	CAFile string
	// CertFile and KeyFile are the certificate that is presented to the daemon, both or none.
	CertFile, KeyFile string
	// ServerName is the name that the daemon's certificate must have. Empty: the host of Address.
	ServerName string
	// Pinned is the DER of the one certificate to trust, whatever names it has. Authorities do not count then.
	Pinned []byte
	// Token is the bearer token that goes with each call. Empty: that in TokenFile, or none.
	Token     string
	TokenFile string
	// Timeout bounds one call, and the time between two messages of a stream.
	Timeout time.Duration
}

// Client makes calls.
type Client struct {
	Admin   serverpb.AdminClient
	Control controlpb.ControlClient

	address string
	timeout time.Duration
	conn    *grpc.ClientConn
}

// Dial prepares a connection. It fails on bad options only: whether there is a daemon is seen at the first call.
func Dial(opts Options) (*Client, error) {
	address := dialAddress(opts.Address)
	transport, secure, err := opts.transport()
	if err != nil {
		return nil, err
	}
	c := &Client{address: address, timeout: opts.Timeout}
	dialOptions := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		grpc.WithUnaryInterceptor(c.withTimeout),
		// The daemon is on the operator's own network; the proxies of the environment lead elsewhere.
		grpc.WithNoProxy(),
	}
	token, err := opts.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		if !secure && !isLocal(address) {
			return nil, fmt.Errorf("the token would go to %s unencrypted: use --tls or --ca_file, or a local address", address)
		}
		dialOptions = append(dialOptions, grpc.WithPerRPCCredentials(bearer(token)))
	}
	if c.conn, err = grpc.NewClient(address, dialOptions...); err != nil {
		return nil, fmt.Errorf("--admin %s: %w; write host:port or unix:PATH", opts.Address, err)
	}
	c.Admin, c.Control = serverpb.NewAdminClient(c.conn), controlpb.NewControlClient(c.conn)
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) withTimeout(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, callOptions ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return invoke(ctx, method, request, answer, conn, callOptions...)
}

// dialAddress turns an address to listen at into one to connect to.
func dialAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// isLocal reports whether what is sent to address stays on this machine.
func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (o *Options) token() (string, error) {
	if o.Token != "" || o.TokenFile == "" {
		return o.Token, nil
	}
	content, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return "", fmt.Errorf("--token_file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("--token_file %s: want one line with the token", o.TokenFile)
	}
	return token, nil
}

// bearer is a token that goes with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity leaves the decision to Dial, which knows about local addresses.
func (b bearer) RequireTransportSecurity() bool { return false }

func (o *Options) transport() (_ credentials.TransportCredentials, secure bool, err error) {
	if !o.TLS && o.CAFile == "" && o.CertFile == "" && o.KeyFile == "" && o.ServerName == "" {
		return insecure.NewCredentials(), false, nil
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, false, errors.New("--cert_file and --key_file go together: give both or none")
	}
	config, err := o.tlsConfig()
	if err != nil {
		return nil, false, err
	}
	return credentials.NewTLS(config), true, nil
}
