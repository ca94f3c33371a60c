package agent

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/disk"
	"github.com/farspeak/farspeak/internal/winreg"
	"github.com/farspeak/farspeak/internal/winreg/regtest"
	clientpb "github.com/farspeak/farspeak/proto/fleetspeak/client"
)

const testKey = `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`

func createKey(t *testing.T, r winreg.Registry) winreg.Key {
	t.Helper()
	k, err := r.Create(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// writeback is the state as it is in the registry.
func writeback(t *testing.T, r winreg.Registry) []byte {
	t.Helper()
	data, err := createKey(t, r).Binary("writeback", maxStateSize+1)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A missing and an empty value are a new client, which stays the same from then on.
func TestStateInTheRegistry(t *testing.T) {
	for _, name := range []string{"missing", "empty"} {
		r := regtest.New()
		if name == "empty" {
			if err := createKey(t, r).SetBinary("WriteBack", nil); err != nil {
				t.Fatal(err)
			}
		}
		s, err := openState(RegistryState(r, testKey), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openState(RegistryState(r, testKey), time.Now()); !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: a second agent: %v", name, err)
		}
		fresh, err := s.rekey()
		if err != nil {
			t.Fatal(err)
		}
		kept := &clientpb.ClientState{}
		if err := proto.Unmarshal(writeback(t, r), kept); err != nil || len(kept.ClientKey) == 0 {
			t.Errorf("%s: %v in the registry, %v", name, kept, err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		again, err := openState(RegistryState(r, testKey), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if again.identity().ID != fresh.ID {
			t.Errorf("%s: client %v, then %v", name, fresh.ID, again.identity().ID)
		}
		if names, err := createKey(t, r).Names(); err != nil || len(names) != 1 {
			t.Errorf("%s: values are %q, %v", name, names, err)
		}
	}
}

func TestCorruptStateInTheRegistryIsKeptAside(t *testing.T) { // G-12
	r := regtest.New()
	corrupt := []byte("this is no protocol buffer at all")
	if err := createKey(t, r).SetBinary("writeback", corrupt); err != nil {
		t.Fatal(err)
	}
	found := time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC)
	s, err := openState(RegistryState(r, testKey), found)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	aside, err := createKey(t, r).Binary("writeback.corrupt-20260131T235959.000Z", maxStateSize)
	if err != nil || !bytes.Equal(aside, corrupt) {
		t.Errorf("kept is %q, %v", aside, err)
	}
	if proto.Unmarshal(writeback(t, r), &clientpb.ClientState{}) != nil {
		t.Error("the state is corrupt still")
	}
}

// What cannot be read may hold the key all the same, and is not written over.
func TestUnusableStateInTheRegistryIsAnError(t *testing.T) { // G-12
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		prepare func(winreg.Key) error
		breaks  error
	}{
		"too large":       {func(k winreg.Key) error { return k.SetBinary("writeback", make([]byte, maxStateSize+1)) }, nil},
		"a text":          {func(k winreg.Key) error { return k.SetText("writeback", "x") }, nil},
		"no place":        {func(winreg.Key) error { return nil }, refused},
		"a damaged key":   {func(k winreg.Key) error { return k.SetBinary("writeback", []byte("\x0a\x03key")) }, nil},
		"not kept aside?": {func(k winreg.Key) error { return k.SetBinary("writeback", []byte("\xff")) }, refused},
	} {
		r := regtest.New()
		k := createKey(t, r)
		if err := test.prepare(k); err != nil {
			t.Fatal(err)
		}
		before, _ := k.Binary("writeback", maxStateSize+1)
		r.Break(test.breaks)
		_, err := openState(RegistryState(r, testKey), time.Now())
		if err == nil || !strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: %v, want an error that names the key", name, err)
		}
		if after, _ := k.Binary("writeback", maxStateSize+1); !bytes.Equal(after, before) {
			t.Errorf("%s: the value was changed", name)
		}
		if err := k.Lock(); err != nil {
			t.Errorf("%s: the key stays locked: %v", name, err)
		}
	}
}
