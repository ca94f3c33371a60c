package storetest

import (
	"context"
	"errors"
	"strings"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var schemaTests = []test{
	{name: "Versions_G49", run: testSchema},
	{name: "CancelledContext", run: testCancelled},
	{name: "ClosedStore", run: testClosed},
}

func testSchema(f *fixture) { // G-49
	f.must(f.s.Ping(f.ctx))
	f.must(f.s.CheckSchema(f.ctx))
	if applied, err := f.s.Migrate(f.ctx); err != nil || len(applied) != 0 {
		f.Errorf("migrating twice: %v, %v", applied, err)
	}
	for _, tc := range []struct{ name, change, text string }{
		{"newer", "INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)", "9999"},
		{"older", "DELETE FROM schema_version WHERE version_id > 1", "fsctl migrate --components_config FILE"},
		{"none", "DROP TABLE schema_version", "version 0"},
	} {
		f.db.Exec(f, tc.change)
		if err := f.s.CheckSchema(f.ctx); !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), tc.text) {
			f.Errorf("%s: %v, want ErrSchema that says %q", tc.name, err, tc.text)
		}
		if tc.name == "newer" {
			if _, err := f.s.Migrate(f.ctx); !errors.Is(err, store.ErrSchema) {
				f.Errorf("migrating a newer schema: %v, want ErrSchema", err)
			}
		}
	}
}

func testCancelled(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	_, err := f.s.GetClients(ctx, ids(1))
	if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnavailable) {
		f.Errorf("reading: %v, want the context's error alone", err)
	}
	id := identity.NewClientID()
	_, err = f.s.RecordContacts(ctx, []store.ContactUpdate{{ClientID: id, Key: keyOf(id)}})
	if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnavailable) {
		f.Errorf("writing: %v, want the context's error alone", err)
	}
	if f.get(id) != nil {
		f.Error("a cancelled call wrote")
	}
}

func testClosed(f *fixture) {
	s := f.db.Open(f, Options{})
	f.must(s.Close())
	if err := s.Ping(f.ctx); err == nil {
		f.Error("a closed store answers")
	}
}
