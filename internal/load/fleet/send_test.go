package fleet_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"testing"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/wire"
)

// acknowledge answers records, and stops the benchmark's wait after some of them.
func acknowledge(conn net.Conn, left *atomic.Int64, done chan<- struct{}) {
	lines := bufio.NewReader(conn)
	if _, err := http.ReadRequest(lines); err != nil {
		return
	}
	io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	records := wire.NewRecordReader(httputil.NewChunkedReader(lines), wire.FromClient(nil))
	if records.ReadMagic() != nil {
		return
	}
	for index := uint64(0); ; index++ {
		record, err := records.Next()
		if err != nil {
			return
		}
		record.Release()
		answer := wire.AppendAck(nil, index)
		if index == 0 {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			answer = wire.AppendRecord(nil, wire.AppendContactData(nil, 42, nil))
		} else if left.Add(-1) == 0 {
			close(done)
		}
		fmt.Fprintf(conn, "%x\r\n%s\r\n", len(answer), answer)
	}
}

// BenchmarkSend is a record of some messages and its acknowledgement, with both ends.
func BenchmarkSend(b *testing.B) {
	for _, batch := range []int{1, 10} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan struct{})
			pair, authority := certificate(b)
			address := listen(b, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert},
				func(conn net.Conn) { acknowledge(conn, &left, done) })
			_, keys := keyring(b, 1)
			f, err := fleet.New(fleet.Job{Servers: []string{address}, TrustedCerts: authority, Count: 1, Window: 4}, keys)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			f.StartSending(fleet.Sending{Service: "sink", Size: 200, Batch: batch, Closed: true})
			b.ReportAllocs()
			b.ResetTimer()
			f.Connect()
			<-done
		})
	}
}
