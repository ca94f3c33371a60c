package admin_test

import (
	"fmt"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
)

// BenchmarkInsertMessage measures submissions over gRPC by one caller and by many, who share transactions.
func BenchmarkInsertMessage(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *storetest.Database{
		"SQLite": storetest.SQLiteDatabase, "MySQL": storetest.MySQLDatabase,
	} {
		for _, callers := range []int{1, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				s := open(b).Open(b, storetest.Options{})
				f := serve(b, s, nil)
				clients := make([]identity.ClientID, 100)
				updates := make([]store.ContactUpdate, len(clients))
				for i := range clients {
					clients[i] = identity.NewClientID()
					updates[i] = store.ContactUpdate{ClientID: clients[i], Key: clients[i].Bytes(), StreamingTo: "server:8080"}
				}
				if _, err := s.RecordContacts(b.Context(), updates); err != nil {
					b.Fatal(err)
				}
				b.SetParallelism(callers)
				if callers == 1 {
					n := 0
					for b.Loop() {
						f.insert(message(clients[n%len(clients)]))
						n++
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for n := 0; pb.Next(); n++ {
							if _, err := f.admin.InsertMessage(b.Context(), message(clients[n%len(clients)])); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				if runs := f.metric("farspeak_batch_run_seconds"); runs > 0 {
					b.ReportMetric(float64(b.N)/runs, "messages/transaction")
				}
			})
		}
	}
}
