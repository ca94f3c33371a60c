// Package store holds what the storage implementations and their callers share: row types, outcomes and sentinel
// errors. It does no I/O, logs nothing and starts no goroutines.
//
// The implementations live below this package (mysql, sqlite, and sqlbase for what they share). Each consumer declares
// the few methods it needs in its own store.go; the full contract, method by method, is the conformance suite in
// storetest, which every implementation passes.
//
// Rules that hold for every method:
//
//   - The store's own clock decides. Callers pass durations, never due times, so that skew between daemons cannot delay
//     or repeat a message (G-48).
//   - A method that takes a slice is one transaction, safe to run again, that locks rows in one fixed order. It answers
//     for each element; an error of the method itself means that nothing was done. Callers bound the slices (batch
//     package); an empty slice is no statement.
//   - Transient faults (deadlock, lock wait, commit conflict, busy file) are retried inside, bounded and with jitter; what
//     then remains is ErrUnavailable.
//   - No method keeps a transaction open while a caller's function runs.
package store

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
)

// Errors that callers act on. Implementations wrap them; use errors.Is.
var (
	// ErrNotFound says that the named row does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that another row of the same name exists already.
	ErrConflict = errors.New("already exists")
	// ErrKeyMismatch says that a client ID is already bound to another public key (G-44).
	ErrKeyMismatch = errors.New("the client ID belongs to another key")
	// ErrUnknownClient says that a message names a client that the store does not know.
	ErrUnknownClient = errors.New("unknown client")
	// ErrQueueFull says that a bounded queue of the store (a client's messages, the backlog) has no room.
	ErrQueueFull = errors.New("queue is full")
	// ErrInvalid says that a value cannot be stored: a name over MaxName, an ID of a wrong size, a message over
	// MaxMessageBytes. Trying again is of no use.
	ErrInvalid = errors.New("invalid value")
	// ErrUnavailable says that the database cannot be reached, is overloaded, full or read-only; trying later may help.
	ErrUnavailable = errors.New("store unavailable")
	// ErrSchema says that the schema is older or newer than this binary knows.
	ErrSchema = errors.New("schema version mismatch")
)

// Bounds on what is stored. A value past its bound is ErrInvalid, except where a method says that it is cut or left out.
const (
	// MaxName bounds names of services, labels, files and message types, in characters.
	MaxName = 128
	// MaxMessageBytes bounds one serialized message. It keeps a row within a packet of 16 MiB, the default of MariaDB.
	MaxMessageBytes = 15 << 20
	// MaxLabels bounds the labels and the services that a client reports of itself; what is past it is left out (G-32).
	MaxLabels = 256
)

// Label is a label of a client: the service that owns it and its text.
type Label struct {
	Service string
	Label   string
}

// Client is a client as stored.
type Client struct {
	ID                 identity.ClientID
	Key                []byte // public key, PKIX DER
	Labels             []Label
	Blacklisted        bool
	FirstContact       time.Time
	LastContact        time.Time // the last contact, the end of its last session, or its registration
	LastSeen           time.Time // LastContact, or the last heartbeat of the server that holds its session; of GetClients and ListClients
	LastContactAddress string    // host:port as seen by the server
	LastClock          *timestamppb.Timestamp
	StreamingTo        string // notification address of the server that holds its session; empty when none does
}

// ContactUpdate records one contact: a poll, or the start of a session. It registers the client when it is new.
type ContactUpdate struct {
	ClientID      identity.ClientID
	Key           []byte   // presented public key, PKIX DER; compared with the stored one
	ClaimedLabels []string // stored under service "client" when this contact registers the client, ignored otherwise
	SentNonce     uint64
	ReceivedNonce uint64
	Address       string                 // host:port
	Clock         *timestamppb.Timestamp // nil when the contact had none
	StreamingTo   string                 // empty for a poll
}

// ContactOutcome answers one ContactUpdate.
type ContactOutcome struct {
	Client *Client // after the update; nil when Err is set
	New    bool    // this contact registered the client
	Err    error   // ErrKeyMismatch, or nil
}

// SessionEnd says that a session of a client on the server with address StreamingTo is over. It does nothing when the
// client streams elsewhere by now.
type SessionEnd struct {
	ClientID    identity.ClientID
	StreamingTo string
	Broken      bool // it did not end in order: what was handed out once is due again
}

// ClientInfo is what a client last reported of itself: its labels of service "client" and its services.
type ClientInfo struct {
	ClientID identity.ClientID
	Labels   []string
	Services []ClientService
}

// ClientService is a service that runs on a client.
type ClientService struct {
	Name      string
	Signature []byte // of its signed configuration; empty when unsigned
}

// Contact is one row of a client's contact history.
type Contact struct {
	SentNonce     uint64
	ReceivedNonce uint64
	Address       string
	Time          time.Time // unique for a client
}

// ServerInfo is one fs-server, as its heartbeat tells.
type ServerInfo struct {
	ID        string // unique for a running process
	Address   string // where it takes notifications, host:port
	Version   string
	Sessions  int
	Draining  bool
	Uptime    time.Duration // since before it held its first session; told with a heartbeat, not read back
	Heartbeat time.Time     // by the store's clock; set by the store

	// HandoverKey is what messages are sealed with that are handed over to it, 32 random bytes, or nothing; it is told with a
	// heartbeat and read with Store.HandoverKey alone.
	HandoverKey []byte
}

// File is the metadata of a stored file.
type File struct {
	Service  string
	Name     string
	Size     int64
	Modified time.Time
}

// ResourceUsage is one stored resource usage record of a client.
type ResourceUsage struct {
	ClientID        identity.ClientID
	ServerTime      time.Time // set by the store
	Nonce           int64     // set by the store; orders the reports of one moment
	Scope           string
	PID             int64
	ProcessStart    *timestamppb.Timestamp
	ClientTime      *timestamppb.Timestamp
	MeanUserCPU     float32 // ms/s, as the other rates
	MaxUserCPU      float32
	MeanSystemCPU   float32
	MaxSystemCPU    float32
	MeanResidentMiB int32
	MaxResidentMiB  int32
	Terminated      bool
	MeanFDs         int32
	MaxFDs          int32
}

// Result is what became of a message.
type Result struct {
	Processed time.Time
	Failed    bool
	Reason    string // when failed
}

// MessageStatus answers a question for one message.
type MessageStatus struct {
	Creation *timestamppb.Timestamp
	Result   *Result // nil while pending
}
