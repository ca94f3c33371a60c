// Package vectors reads sessions that were recorded between the original's client and server, for tests of both ends. A
// recording holds what went over each TLS connection in each direction; Connection.Exchanges takes it apart with net/http.
package vectors

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// Read is one read from the socket after TLS. Its borders mean nothing.
type Read struct {
	At         time.Duration // since the recorder started
	FromClient bool
	Bytes      []byte
}

// Connection is one recorded TLS connection.
type Connection struct {
	Number int
	// Certificate is the DER of the certificate that the client presented. The recorder wrote each one down once; a
	// connection without one of its own was made under the one before.
	Certificate []byte
	Reads       []Read
}

// Load reads a recording: one JSON object a line, in the order in which things happened. Connections come in the order of
// their numbers.
func Load(tb testing.TB, path string) []*Connection {
	tb.Helper()
	file, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	var connections []*Connection
	var certificate []byte
	for decoder := json.NewDecoder(file); ; {
		var l line
		if err := decoder.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		for l.Number > len(connections) {
			connections = append(connections, &Connection{Number: len(connections) + 1, Certificate: certificate})
		}
		if l.Direction == "client-cert-der" {
			certificate = l.Bytes
			connections[l.Number-1].Certificate = certificate
			continue
		}
		connections[l.Number-1].add(tb, l)
	}
	if len(connections) == 0 {
		tb.Fatalf("%s holds no connections", path)
	}
	return connections
}

type line struct {
	Number    int      `json:"conn"`
	Seconds   float64  `json:"t_s"`
	Direction string   `json:"dir"`
	Bytes     hexBytes `json:"hex"`
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func (c *Connection) add(tb testing.TB, l line) {
	tb.Helper()
	if l.Direction != "client" && l.Direction != "server" {
		tb.Fatalf("connection %d: unknown direction %q", l.Number, l.Direction)
	}
	c.Reads = append(c.Reads, Read{
		At:         time.Duration(l.Seconds * float64(time.Second)),
		FromClient: l.Direction == "client",
		Bytes:      l.Bytes,
	})
}

// Client is everything that the client sent.
func (c *Connection) Client() []byte { return c.joined(true) }

// Server is everything that the server sent.
func (c *Connection) Server() []byte { return c.joined(false) }

func (c *Connection) joined(fromClient bool) []byte {
	var all []byte
	for _, r := range c.Reads {
		if r.FromClient == fromClient {
			all = append(all, r.Bytes...)
		}
	}
	return all
}

// Exchange is one request with its response. The bodies of both are read, and free of chunking, but not of compression.
type Exchange struct {
	Request      *http.Request
	RequestBody  []byte
	Response     *http.Response
	ResponseBody []byte
	// Continued says that the server sent 100 Continue first.
	Continued bool
	// Cut says that the recording ends before one of the bodies does, as it does for a session that was under way.
	Cut bool
}

// Exchanges takes the connection apart.
func (c *Connection) Exchanges(tb testing.TB) []Exchange {
	tb.Helper()
	client, server := bufio.NewReader(bytes.NewReader(c.Client())), bufio.NewReader(bytes.NewReader(c.Server()))
	var exchanges []Exchange
	for {
		e, err := nextExchange(client, server)
		if err == io.EOF {
			return exchanges
		}
		if err != nil {
			tb.Fatalf("connection %d, exchange %d: %v", c.Number, len(exchanges), err)
		}
		exchanges = append(exchanges, e)
	}
}

func nextExchange(client, server *bufio.Reader) (e Exchange, err error) {
	if e.Request, err = http.ReadRequest(client); err != nil {
		return e, err // io.EOF at the end of the recording
	}
	if e.RequestBody, err = e.readBody(e.Request.Body); err != nil {
		return e, err
	}
	for {
		if e.Response, err = http.ReadResponse(server, e.Request); err != nil {
			return e, noEOF(err)
		}
		if e.Response.StatusCode != http.StatusContinue {
			break
		}
		e.Continued = true
	}
	e.ResponseBody, err = e.readBody(e.Response.Body)
	return e, err
}

func (e *Exchange) readBody(body io.ReadCloser) ([]byte, error) {
	defer body.Close()
	read, err := io.ReadAll(body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.Cut, err = true, nil
	}
	return read, err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
