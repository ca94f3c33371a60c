package database_test

import (
	"testing"
	"time"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/store"
)

// TestRetention: whatever is to be kept for ever, dead servers and the keys of old tickets are not.
func TestRetention(t *testing.T) {
	standard := store.DefaultRetention()
	forever := database.Retention(config.Retention{})
	if want := (store.Retention{Servers: standard.Servers, TicketKeys: standard.TicketKeys}); forever != want {
		t.Errorf("for ever: %+v, want %+v", forever, want)
	}
	if forever.Servers <= 0 || forever.TicketKeys <= 0 {
		t.Errorf("for ever: %+v, want ages for servers and ticket keys", forever)
	}
	want := standard
	want.Contacts, want.Results, want.DeadLetters, want.ResourceUsage = time.Hour, 2*time.Hour, 3*time.Hour, 4*time.Hour
	want.MaxDeadLetters, want.MaxDeadLetterBytes = 5, 6
	got := database.Retention(config.Retention{
		Contacts: time.Hour, Results: 2 * time.Hour, DeadLetters: 3 * time.Hour, ResourceUsage: 4 * time.Hour,
		MaxDeadLetters: 5, MaxDeadLetterBytes: 6,
	})
	if got != want {
		t.Errorf("configured: %+v, want %+v", got, want)
	}
}
