package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/disk"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
)

// openTestState opens and closes a state, and returns who it was.
func openTestState(t *testing.T, path string) *Identity {
	t.Helper()
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	return s.identity()
}

func readState(t *testing.T, path string) *clientpb.ClientState {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := &clientpb.ClientState{}
	if err := proto.Unmarshal(data, kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestIdentityIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	first := openTestState(t, path)
	if again := openTestState(t, path); again.ID != first.ID {
		t.Errorf("client %v, then %v", first.ID, again.ID)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info, err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is left: %v", err)
	}
}

// A known key gives the known ID and goes back to disk as it was.
func TestKeyVector(t *testing.T) {
	const scalarOne = "307702010104200000000000000000000000000000000000000000000000000000000000000001a00a06082a8648ce3d030107a14403420004" +
		"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
	path := filepath.Join(t.TempDir(), "state")
	key := unhex(t, scalarOne)
	data, err := proto.Marshal(&clientpb.ClientState{ClientKey: key})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data)
	if id := openTestState(t, path); id.ID.String() != "5cd252fb0ce89324" {
		t.Errorf("client ID %v", id.ID)
	}
	if got := readState(t, path); !bytes.Equal(got.ClientKey, key) {
		t.Errorf("key on disk is %x", got.ClientKey)
	}
}

func TestEmptyStateFileIsANewClient(t *testing.T) { // G-12
	path := filepath.Join(t.TempDir(), "state")
	writeFile(t, path, nil)
	first := openTestState(t, path)
	if again := openTestState(t, path); again.ID != first.ID {
		t.Errorf("client %v, then %v", first.ID, again.ID)
	}
	if kept, _ := filepath.Glob(path + ".corrupt-*"); len(kept) != 0 {
		t.Errorf("an empty file was kept: %v", kept)
	}
}

func TestCorruptStateIsKeptAside(t *testing.T) { // G-12
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	openTestState(t, good)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"truncated": whole[:len(whole)/2],
		"garbage":   []byte("this is no protocol buffer at all"),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			writeFile(t, path, content)
			fresh := openTestState(t, path)
			kept, err := filepath.Glob(path + ".corrupt-*")
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept aside: %v, %v", kept, err)
			}
			got, err := os.ReadFile(kept[0])
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes were kept of %d, %v", len(got), len(content), err)
			}
			if again := openTestState(t, path); again.ID != fresh.ID {
				t.Errorf("client %v, then %v", fresh.ID, again.ID)
			}
		})
	}
}

// What cannot be read may be good: it is not written over.
func TestUnreadableStateIsAnError(t *testing.T) { // G-12
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(FileState(path), time.Now()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("what was there is gone: %v", err)
	}
}

// A file that is too large may hold the key all the same.
func TestLargeStateIsAnError(t *testing.T) { // G-12
	path := filepath.Join(t.TempDir(), "state")
	writeFile(t, path, make([]byte, maxStateSize+1))
	if _, err := openState(FileState(path), time.Now()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != maxStateSize+1 {
		t.Errorf("the file was touched: %v, %v", info, err)
	}
}

// Whatever list a server has, the file stays one that can be read back.
func TestRevokedSerialsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte{1}, maxSerialSize+1)
	if grown, refused := s.revoke([][]byte{long, long[1:], long[1:]}); !grown || refused != 1 {
		t.Errorf("long serials: grown %t, %d refused, want the first", grown, refused)
	}
	serials := make([][]byte, maxRevoked+9)
	for i := range serials {
		serials[i] = binary.BigEndian.AppendUint64(bytes.Repeat([]byte{2}, maxSerialSize-8), uint64(i))
	}
	if grown, refused := s.revoke(serials); !grown || refused != 10 {
		t.Errorf("many serials: grown %t, %d refused, want 10", grown, refused)
	}
	if grown, refused := s.revoke(serials); grown || refused != 10 {
		t.Errorf("the same again: grown %t, %d refused, want 10", grown, refused)
	}
	who := s.identity().ID
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxStateSize/2 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	if again := openTestState(t, path); again.ID != who {
		t.Errorf("client %v, then %v", who, again.ID)
	}
	if got := len(readState(t, path).RevokedCertSerials); got != maxRevoked {
		t.Errorf("%d serials are on disk, want %d", got, maxRevoked)
	}
}

func TestDamagedKeyIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	data, err := proto.Marshal(&clientpb.ClientState{ClientKey: []byte("no key")})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data)
	if _, err := openState(FileState(path), time.Now()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestUnwritableDirectoryIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "state")
	if _, err := openState(FileState(path), time.Now()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestTwoAgentsOnOneIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(FileState(path), time.Now()); !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	openTestState(t, path)
}

func TestStateKeepsWhatItDoesNotKnow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	openTestState(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unknown := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "of a later version")
	writeFile(t, path, append(data, unknown...))
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.rekey(); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if got := readState(t, path).ProtoReflect().GetUnknown(); !bytes.Equal(got, unknown) {
		t.Errorf("unknown fields are %x", got)
	}
}

// A new key is on disk before anyone hears of it; nonce and revoked serials stay.
func TestRekeyIsWrittenAtOnce(t *testing.T) { // G-12
	path := filepath.Join(t.TempDir(), "state")
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.setNonce(42)
	s.revoke([][]byte{{1, 2, 3}})
	old := s.identity()
	fresh, err := s.rekey()
	if err != nil || fresh.ID == old.ID {
		t.Fatalf("rekey: %v, %v", fresh.ID, err)
	}
	kept := readState(t, path)
	onDisk := &state{kept: kept}
	key, err := onDisk.key()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := newIdentity(key); err != nil || id.ID != fresh.ID {
		t.Errorf("on disk is %v, want %v; %v", id.ID, fresh.ID, err)
	}
	if kept.SequencingNonce != 42 || len(kept.RevokedCertSerials) != 1 || !s.isRevoked([]byte{1, 2, 3}) {
		t.Errorf("on disk is %v", kept)
	}
}

func TestNonceIsWrittenAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := openState(FileState(path), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.setNonce(42)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if got := readState(t, path).SequencingNonce; got != 42 {
		t.Errorf("nonce on disk is %d", got)
	}
}

func TestStateWithoutAFile(t *testing.T) {
	if one, other := openTestState(t, ""), openTestState(t, ""); one.ID == other.ID {
		t.Error("two clients are the same")
	}
}
