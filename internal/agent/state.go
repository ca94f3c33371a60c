package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/golang/glog"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/disk"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
)

const (
	// maxStateSize bounds what is read back. It is twice what the revoked serials can take; key and nonce take 150 bytes.
	maxStateSize = 16 << 20
	// maxRevoked is how many revoked serials are kept, and maxSerialSize the largest of them in bytes. Those of X.509 have
	// 20; a longer one is nobody's.
	maxRevoked    = 100_000
	maxSerialSize = 64
)

// nonceFlushDelay is how long a new nonce may wait for the disk. It only serves to spot restored images offline.
const nonceFlushDelay = time.Minute

// state is what survives the process: key, nonce, revoked serials. All methods may be called from any goroutine.
//
// An absent or empty state is a new client. One that cannot be read, or is too large to be one, is an error and is left
// alone, since writing over it would make the machine another client (G-12). One that does not parse is kept under another
// name, then replaced.
type state struct {
	store StateStore // nil: nothing is kept

	mu      sync.Mutex
	kept    *clientpb.ClientState // with the fields that only another version knows
	current *Identity
	revoked map[string]bool
	dirty   bool
	flush   *time.Timer // runs while dirty
	closed  bool
}

// StateStore is where an agent keeps its serialized state from one run to the next.
type StateStore interface {
	// String names the place: "state file /var/lib/farspeak/state".
	String() string
	// Open takes the place for this agent alone until Close, and fails with disk.ErrLocked if another has it.
	Open() error
	// Load returns what is there. Nothing is an os.ErrNotExist, more than limit bytes a disk.ErrTooLarge.
	Load(limit int64) ([]byte, error)
	// Replace is durable when it returns. Whatever happens, the old or the new state is there, whole.
	Replace(data []byte) error
	// SetAside keeps what is there under a name that tells when it was found, and returns that name.
	SetAside(now time.Time) (string, error)
	Close()
}

// asideStamp is the end of the names of states that were set aside.
func asideStamp(now time.Time) string { return ".corrupt-" + now.UTC().Format("20060102T150405.000Z") }

// openState reads the state, makes a key if there is none, and writes it back, so that a place that cannot be written is
// noticed at start. It holds the place until close.
func openState(store StateStore, now time.Time) (*state, error) {
	s := &state{store: store, kept: &clientpb.ClientState{}, revoked: make(map[string]bool)}
	if store == nil {
		return s, s.begin()
	}
	if err := store.Open(); err != nil {
		return nil, fmt.Errorf("%v: %w", store, err)
	}
	if err := s.load(now); err != nil {
		store.Close()
		return nil, err
	}
	if err := s.begin(); err != nil {
		store.Close()
		return nil, err
	}
	return s, nil
}

// begin finds the identity in what was loaded and writes the state for the first time.
func (s *state) begin() error {
	stored := s.kept.RevokedCertSerials
	s.kept.RevokedCertSerials = nil
	s.takeSerialsLocked(stored)
	key, err := s.key()
	if err != nil {
		return err
	}
	if err := s.setKeyLocked(key); err != nil {
		return err
	}
	return s.writeLocked()
}

// key returns the stored key, or a new one when none is stored.
func (s *state) key() (*ecdsa.PrivateKey, error) {
	if len(s.kept.ClientKey) == 0 {
		return newKey()
	}
	key, err := x509.ParseECPrivateKey(s.kept.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("%v: the client key in it is damaged; restore it, or remove it to "+
			"enrol this machine as a new client: %w", s.store, err)
	}
	return key, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make client key: %w", err)
	}
	return key, nil
}

func (s *state) load(now time.Time) error {
	data, err := s.store.Load(maxStateSize)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, disk.ErrTooLarge):
		return fmt.Errorf("%v is larger than %d bytes, and left as it is: restore it, or move it away to enrol "+
			"this machine as a new client", s.store, maxStateSize)
	case err != nil:
		return fmt.Errorf("%v cannot be read; it is left as it is: %w", s.store, err)
	}
	if err := proto.Unmarshal(data, s.kept); err != nil {
		s.kept = &clientpb.ClientState{}
		return s.setAside(now)
	}
	return nil
}

// setAside keeps a state that makes no sense.
func (s *state) setAside(now time.Time) error {
	aside, err := s.store.SetAside(now)
	if err != nil {
		return fmt.Errorf("%v is corrupt and cannot be kept aside: %w", s.store, err)
	}
	glog.Errorf("%v is corrupt: it is kept as %s, and this machine enrols as a new client", s.store, aside)
	return nil
}

// Identity returns who the agent is now.
func (s *state) identity() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// rekey replaces the key. The new identity counts even if writing it fails, which is reported and tried again.
func (s *state) rekey() (*Identity, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.setKeyLocked(key); err != nil {
		return nil, err
	}
	if err := s.writeLocked(); err != nil {
		s.flushLaterLocked()
		glog.Errorf("the state will be written later: %v", err)
	}
	return s.current, nil
}

func (s *state) setKeyLocked(key *ecdsa.PrivateKey) error {
	id, err := newIdentity(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode client key: %w", err)
	}
	s.kept.ClientKey, s.current = der, id
	return nil
}

func (s *state) nonce() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.SequencingNonce
}

// setNonce notes what the server sent; it reaches the disk within nonceFlushDelay.
func (s *state) setNonce(nonce uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.SequencingNonce == nonce {
		return
	}
	s.kept.SequencingNonce = nonce
	s.flushLaterLocked()
}

// revoke adds serials, big-endian without leading zeros. grown says that any of them is new: those are on disk when it
// returns, or will be within the flush delay if writing fails. refused is how many are beyond the bounds.
func (s *state) revoke(serials [][]byte) (grown bool, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grown, refused = s.takeSerialsLocked(serials)
	if !grown {
		return false, refused
	}
	if err := s.writeLocked(); err != nil {
		s.flushLaterLocked()
		glog.Errorf("the state will be written later: %v", err)
	}
	return true, refused
}

func (s *state) takeSerialsLocked(serials [][]byte) (grown bool, refused int) {
	for _, serial := range serials {
		switch {
		case s.revoked[string(serial)]:
		case len(serial) > maxSerialSize || len(s.revoked) >= maxRevoked:
			refused++
		default:
			s.revoked[string(serial)] = true
			s.kept.RevokedCertSerials = append(s.kept.RevokedCertSerials, bytes.Clone(serial))
			grown = true
		}
	}
	return grown, refused
}

func (s *state) isRevoked(serial []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[string(serial)]
}

// flushLaterLocked arms the timer that writes; a state at rest has none.
func (s *state) flushLaterLocked() {
	s.dirty = true
	if s.store == nil || s.flush != nil || s.closed {
		return
	}
	s.flush = time.AfterFunc(nonceFlushDelay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flush = nil
		if s.closed || !s.dirty {
			return
		}
		if err := s.writeLocked(); err != nil {
			glog.Errorf("the state will be written later: %v", err)
			s.flushLaterLocked()
		}
	})
}

func (s *state) writeLocked() error {
	if s.store == nil {
		return nil
	}
	data, err := proto.Marshal(s.kept)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := s.store.Replace(data); err != nil {
		return fmt.Errorf("write %v: %w", s.store, err)
	}
	s.dirty = false
	return nil
}

// close writes what is still unwritten and lets another agent have the identity.
func (s *state) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.flush != nil {
		s.flush.Stop()
		s.flush = nil
	}
	var err error
	if s.dirty {
		err = s.writeLocked()
	}
	if s.store != nil {
		s.store.Close()
	}
	return err
}
