package fleet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"runtime"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/internal/identity"
)

// A key file is a sequence of slots of one size, so that a fleet can read its own part:
//
//	8    client ID
//	32   private scalar, P-256
//	2    length of the certificate, big endian
//	470  certificate, DER, padded
//
// It is a cache for load tests, with mode 0600; nobody's identity depends on it.
const (
	slotSize       = 512
	scalarSize     = 32
	slotHeader     = identity.ClientIDSize + scalarSize + 2
	maxCertificate = slotSize - slotHeader
)

// noExpiry is the date without an end of RFC 5280; a certificate that has ended keeps sessions from being resumed.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Keyring holds the keys of some clients, packed.
type Keyring struct {
	first int
	slots []byte
}

// credentials are a client's identity, as far as it needs them to connect.
type credentials struct {
	id   identity.ClientID
	slot []byte
}

// EnsureKeys makes the file hold keys for at least count clients. Keys that are there stay, so that the same clients come
// again in the next run.
func EnsureKeys(path string, count int) error {
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key file: %w", err)
	}
	if len(have)%slotSize != 0 {
		return fmt.Errorf("key file %s: %d bytes are no whole number of keys", path, len(have))
	}
	missing := count - len(have)/slotSize
	if missing <= 0 {
		return nil
	}
	made, err := makeSlots(missing)
	if err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	if err := renameio.WriteFile(path, append(have, made...), 0o600); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	return nil
}

// makeSlots makes keys on all cores.
func makeSlots(count int) ([]byte, error) {
	slots := make([]byte, count*slotSize)
	var work errgroup.Group
	parts := runtime.GOMAXPROCS(0)
	for part := range parts {
		work.Go(func() error {
			for i := part; i < count; i += parts {
				if err := makeSlot(slots[i*slotSize:][:slotSize]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return slots, work.Wait()
}

func makeSlot(slot []byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id, err := identity.ClientIDFromKey(key.Public())
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{Organization: []string{id.String()}},
		NotAfter:     noExpiry,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if len(certificate) > maxCertificate {
		return fmt.Errorf("a certificate of %d bytes, %d have room", len(certificate), maxCertificate)
	}
	scalar, err := key.Bytes()
	if err != nil {
		return err
	}
	copy(slot, id[:])
	copy(slot[identity.ClientIDSize:], scalar)
	binary.BigEndian.PutUint16(slot[slotHeader-2:], uint16(len(certificate)))
	copy(slot[slotHeader:], certificate)
	return nil
}

// LoadKeys reads the keys of count clients from first on.
func LoadKeys(path string, first, count int) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	k := &Keyring{first: first, slots: make([]byte, count*slotSize)}
	if _, err := f.ReadAt(k.slots, int64(first)*slotSize); err != nil {
		return nil, fmt.Errorf("key file %s: keys %d to %d: %w", path, first, first+count-1, err)
	}
	return k, nil
}

// ClientIDs are the IDs of all clients in the ring, in order.
func (k *Keyring) ClientIDs() []identity.ClientID {
	ids := make([]identity.ClientID, len(k.slots)/slotSize)
	for i := range ids {
		ids[i] = k.at(k.first + i).id
	}
	return ids
}

// holds says whether the ring has the keys of these clients.
func (k *Keyring) holds(first, count int) bool {
	return first >= k.first && first+count <= k.first+len(k.slots)/slotSize
}

// at is the identity of the client with an index.
func (k *Keyring) at(index int) credentials {
	slot := k.slots[(index-k.first)*slotSize:][:slotSize]
	return credentials{identity.ClientID(slot[:identity.ClientIDSize]), slot}
}

// certificate unpacks what TLS needs. It is garbage after the handshake.
func (c credentials) certificate() (*tls.Certificate, error) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), c.slot[identity.ClientIDSize:][:scalarSize])
	if err != nil {
		return nil, fmt.Errorf("key of client %s: %w", c.id, err)
	}
	size := int(binary.BigEndian.Uint16(c.slot[slotHeader-2:]))
	if size > maxCertificate {
		return nil, fmt.Errorf("certificate of client %s: %d bytes", c.id, size)
	}
	return &tls.Certificate{Certificate: [][]byte{bytes.Clone(c.slot[slotHeader:][:size])}, PrivateKey: key}, nil
}
