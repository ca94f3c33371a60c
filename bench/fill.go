package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What part growth puts into the database, at -fill 1.
const (
	filledResults  = 10_000_000
	filledClients  = 1_000_000
	filledMessages = 100_000
	// filledPerClient is how many messages wait for each absent client that has some.
	filledPerClient = 10
	// fillStep is how many rows one statement makes in the database itself, fillBatch how many it carries.
	fillStep  = 100_000
	fillBatch = 1000
)

// Rows are made by the database, from MariaDB's sequence tables. Keys are spread over all values and come in their order,
// as they would lie after years; times are spread over the last days.
const (
	fillResults = `INSERT INTO message_results (message_id, creation_seconds, creation_nanos, processed_us, failed, reason)
SELECT UNHEX(CONCAT(LPAD(HEX(seq * %[1]d), 16, '0'), LEFT(SHA2(seq, 256), 48))), UNIX_TIMESTAMP() - seq %% 604800, 0,
  (UNIX_TIMESTAMP() - seq %% 604800) * 1000000, 0, '' FROM seq_%[2]d_to_%[3]d`
	fillClients = `INSERT INTO clients
  (client_id, client_key, blacklisted, first_contact_us, last_contact_us, last_contact_address, clock_seconds, clock_nanos, streaming_to)
SELECT UNHEX(LPAD(HEX(seq * %[1]d), 16, '0')), CONCAT(REPEAT('k', 27), UNHEX(SHA2(seq, 512))), 0,
  (UNIX_TIMESTAMP() - 2592000) * 1000000, (UNIX_TIMESTAMP() - seq %% 604800) * 1000000, '192.0.2.1:40000', UNIX_TIMESTAMP(), 0, ''
FROM seq_%[2]d_to_%[3]d`
	fillLabels = `INSERT INTO client_labels (client_id, service, label)
SELECT UNHEX(LPAD(HEX(seq * %[1]d), 16, '0')), 'client', 'linux' FROM seq_%[2]d_to_%[3]d`
	fillContacts = `INSERT INTO client_contacts (client_id, contact_us, sent_nonce, received_nonce, address)
SELECT UNHEX(LPAD(HEX(seq * %[1]d), 16, '0')), (UNIX_TIMESTAMP() - seq %% 604800) * 1000000, seq, seq, '192.0.2.1:40000'
FROM seq_%[2]d_to_%[3]d`
	fillMessages = `INSERT INTO client_messages
  (client_id, seq, message_id, due_us, attempts, kind, service, message_type, creation_seconds, creation_nanos, size, header, data) VALUES `
	fillMessage = `(?, ?, ?, ?, 0, 0, 'load', 'Load', ?, 0, ?, ?, ?)`
)

// fill puts the history of a large installation into the database.
func (b *bench) fill(ctx context.Context) (err error) {
	pool, err := sql.Open("mysql", b.site.dsn+"?interpolateParams=true")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	clients := int(filledClients * b.options.fill)
	for _, f := range []struct {
		what, statement string
		rows            int
	}{
		{"results", fillResults, int(filledResults * b.options.fill)}, {"clients", fillClients, clients}, {"labels", fillLabels, clients},
		{"contacts", fillContacts, clients},
	} {
		if err := fillTable(ctx, pool, f.what, f.statement, f.rows); err != nil {
			return err
		}
	}
	if err := fillPending(ctx, pool, clients, int(filledMessages*b.options.fill)); err != nil {
		return err
	}
	if _, err := pool.ExecContext(ctx, "ANALYZE TABLE message_results, clients, client_labels, client_contacts, client_messages"); err != nil {
		return err
	}
	return writeOut(ctx, pool)
}

const (
	// writtenOut is how many changed pages may be left, and writeOutTimeout how long writing out may take: at 2,000 pages a
	// second it takes 4 GiB.
	writtenOut      = 500
	writeOutTimeout = 3 * time.Minute
)

// writeOut waits until the database has written what was filled in to its files. It would do that for minutes beside what is
// measured then.
func writeOut(ctx context.Context, pool *sql.DB) (err error) {
	began := time.Now()
	var usual float64
	if err := pool.QueryRowContext(ctx, "SELECT @@GLOBAL.innodb_max_dirty_pages_pct").Scan(&usual); err != nil {
		return err
	}
	if _, err := pool.ExecContext(ctx, "SET GLOBAL innodb_max_dirty_pages_pct = 0"); err != nil {
		return err
	}
	defer func() {
		_, restoreErr := pool.ExecContext(context.WithoutCancel(ctx), "SET GLOBAL innodb_max_dirty_pages_pct = ?", usual)
		err = errors.Join(err, restoreErr)
	}()
	for {
		var name string
		var changed int
		if err := pool.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").Scan(&name, &changed); err != nil {
			return fmt.Errorf("write out what was filled in: %w", err)
		}
		if took := time.Since(began); changed <= writtenOut || took > writeOutTimeout {
			fmt.Fprintf(os.Stderr, "   written out but for %d pages, %v\n", changed, took.Round(time.Second))
			return nil
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// spread is the distance between keys that fill 64 bits.
func spread(rows int) uint64 { return ^uint64(0) / uint64(rows+1) }

func fillTable(ctx context.Context, pool *sql.DB, what, statement string, rows int) error {
	began := time.Now()
	for first := 1; first <= rows; first += fillStep {
		last := min(rows, first+fillStep-1)
		if _, err := pool.ExecContext(ctx, fmt.Sprintf(statement, spread(rows), first, last)); err != nil {
			return fmt.Errorf("fill in %s: %w", what, err)
		}
	}
	fmt.Fprintf(os.Stderr, "   filled in %d %s, %v\n", rows, what, time.Since(began).Round(time.Second))
	return nil
}

// fillPending leaves messages for some of the clients that were filled in.
func fillPending(ctx context.Context, pool *sql.DB, clients, rows int) error {
	holders := max(1, rows/filledPerClient)
	var values []string
	var args []any
	for i := range rows {
		number := uint64(i/filledPerClient*max(1, clients/holders)+1) * spread(clients)
		message, err := pendingMessage(number, int64(i))
		if err != nil {
			return err
		}
		values = append(values, fillMessage)
		args = append(args, message...)
		if len(values) == fillBatch || i == rows-1 {
			if _, err := pool.ExecContext(ctx, fillMessages+strings.Join(values, ", "), args...); err != nil {
				return fmt.Errorf("fill in messages: %w", err)
			}
			values, args = nil, nil
		}
	}
	fmt.Fprintf(os.Stderr, "   filled in %d messages for clients that are away\n", rows)
	return nil
}

// pendingMessage are the values of a row of client_messages.
func pendingMessage(client uint64, number int64) ([]any, error) {
	id := identity.NewMessageID()
	var key identity.ClientID
	for i := range key {
		key[i] = byte(client >> (8 * (len(key) - 1 - i)))
	}
	now := time.Now()
	header, err := proto.Marshal(&fspb.Message{
		MessageId: id[:], Source: &fspb.Address{ServiceName: "bench"}, MessageType: "Load",
		Destination: &fspb.Address{ServiceName: "load", ClientId: key[:]}, CreationTime: timestamppb.New(now),
	})
	if err != nil {
		return nil, err
	}
	data, err := proto.Marshal(&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.BytesValue", Value: make([]byte, messageSize)})
	if err != nil {
		return nil, err
	}
	return []any{
		key[:], now.UnixMicro() + number, id[:], now.UnixMicro(), now.Unix(), len(header) + len(data), header, data,
	}, nil
}
