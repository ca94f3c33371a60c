package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/vectors"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// decoded is what one recorded exchange says.
type decoded struct {
	client []*fspb.ContactData
	server []*fspb.ContactData
}

func recordings(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		tb.Fatalf("recordings %v, error %v", files, err)
	}
	return files
}

// decodeStream decodes a session, and checks that our writers make the same bytes of it.
func decodeStream(t *testing.T, e vectors.Exchange) (d decoded) {
	t.Helper()
	encoding, err := wire.DecodeEncoding(e.Request.Header)
	if err != nil {
		t.Fatal(err)
	}
	body, err := wire.NewBody(bytes.NewReader(e.RequestBody), encoding)
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	reader := wire.NewRecordReader(io.TeeReader(body, &plain), wire.FromClient(wire.NewBudget(1<<26)))
	if err := reader.ReadMagic(); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	writer := wire.NewRecordWriter(&again, wire.ToServer())
	for _, record := range readRecords(t, reader) {
		d.client = append(d.client, unwrap(t, record))
		if err := writer.WriteRecord(record); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(again.Bytes(), plain.Bytes()) {
		t.Errorf("written again, the client's side differs:\n%x\n%x", again.Bytes(), plain.Bytes())
	}
	var replies []byte
	for _, record := range readRecords(t, wire.NewRecordReader(bytes.NewReader(e.ResponseBody), wire.FromServer(nil))) {
		data := mustUnmarshal(t, record, &fspb.ContactData{})
		d.server = append(d.server, data)
		replies = appendReply(t, replies, data)
	}
	if !bytes.Equal(replies, e.ResponseBody) {
		t.Errorf("written again, the server's side differs:\n%x\n%x", replies, e.ResponseBody)
	}
	return d
}

func readRecords(t *testing.T, reader *wire.RecordReader) (bodies [][]byte) {
	t.Helper()
	for {
		record, err := reader.Next()
		if err == io.EOF {
			return bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, bytes.Clone(record.Bytes()))
		record.Release()
	}
}

func unwrap(t *testing.T, record []byte) *fspb.ContactData {
	t.Helper()
	wrapped := mustUnmarshal(t, record, &fspb.WrappedContactData{})
	if len(wrapped.Signatures) != 0 || !slices.Equal(wrapped.ClientLabels, []string{"amd64", "linux"}) {
		t.Errorf("signatures %v, labels %q", wrapped.Signatures, wrapped.ClientLabels)
	}
	return mustUnmarshal(t, wrapped.ContactData, &fspb.ContactData{})
}

func mustUnmarshal[M proto.Message](t *testing.T, b []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// appendReply writes what the server said as our server does.
func appendReply(t *testing.T, dst []byte, data *fspb.ContactData) []byte {
	t.Helper()
	switch {
	case data.AckIndex > 0:
		return wire.AppendAck(dst, data.AckIndex)
	case data.DoneSending:
		return wire.AppendDoneSending(dst)
	}
	return wire.AppendRecord(dst, appendContactData(t, data))
}

func appendContactData(t *testing.T, data *fspb.ContactData) []byte {
	t.Helper()
	var encoded [][]byte
	for _, m := range data.Messages {
		one, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		encoded = append(encoded, one)
	}
	return wire.AppendContactData(nil, data.SequencingNonce, encoded)
}

// said lists, for each record, what it is.
func said(records []*fspb.ContactData) (kinds []string) {
	for _, r := range records {
		switch {
		case r.DoneSending:
			kinds = append(kinds, "done")
		case r.AckIndex > 0:
			kinds = append(kinds, "ack "+string('0'+rune(r.AckIndex)))
		case len(r.Messages) == 0:
			kinds = append(kinds, "nothing")
		}
		for _, m := range r.Messages {
			kinds = append(kinds, m.MessageType)
		}
	}
	return kinds
}

func TestRecordedStreams(t *testing.T) {
	const input, output = "StdinServiceInputMessage", "StdinServiceOutputMessage"
	for _, test := range []struct {
		file       string
		connection int
		encoding   wire.Encoding
		nonce      uint64 // of the server; 0 is not compared
		client     []string
		server     []string
	}{
		{"session-stream", 2, wire.EncodingNone, 4592718506626794850,
			[]string{"ClientInfo", output, "MessageAck"}, []string{"nothing", input, "ack 1", "ack 2"}},
		{"session-stream-deflate", 2, wire.EncodingDeflate, 3746140482824675614,
			[]string{"ClientInfo", output, "MessageAck"}, []string{"nothing", input, "ack 1"}},
		{"session-broadcast-close", 2, wire.EncodingNone, 9454500301253665642,
			[]string{"ClientInfo", output, "MessageAck"}, []string{input, "ack 1", "ack 2", "done"}},
		{"session-broadcast-close", 3, wire.EncodingNone, 3620932723735647610,
			[]string{"nothing", "ResourceUsage"}, []string{"nothing", "ack 1"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			exchanges := vectors.Load(t, "testdata/"+test.file+".jsonl")[test.connection-1].Exchanges(t)
			if len(exchanges) != 1 || exchanges[0].Request.URL.Path != "/streaming-message" {
				t.Fatalf("%d exchanges", len(exchanges))
			}
			e := exchanges[0]
			if encoding, _ := wire.DecodeEncoding(e.Request.Header); encoding != test.encoding {
				t.Errorf("encoding %v", encoding)
			}
			if !e.Continued || !e.Cut || e.Response.StatusCode != http.StatusOK {
				t.Errorf("continued %v, cut %v, status %s", e.Continued, e.Cut, e.Response.Status)
			}
			d := decodeStream(t, e)
			if got := said(d.client); !slices.Equal(got, test.client) {
				t.Errorf("the client said %q, want %q", got, test.client)
			}
			if got := said(d.server); !slices.Equal(got, test.server) {
				t.Errorf("the server said %q, want %q", got, test.server)
			}
			checkNonces(t, d, test.nonce)
			checkTokens(t, d.client)
		})
	}
}

// checkNonces expects one nonce from the server, on all but acks and the end, and that the client returns it from its
// record 1 on.
func checkNonces(t *testing.T, d decoded, nonce uint64) {
	t.Helper()
	for i, r := range d.server {
		want := nonce
		if r.AckIndex > 0 || r.DoneSending {
			want = 0
		}
		if r.SequencingNonce != want {
			t.Errorf("record %d of the server has nonce %d, want %d", i, r.SequencingNonce, want)
		}
	}
	for i, r := range d.client[1:] {
		if r.SequencingNonce != d.client[1].SequencingNonce {
			t.Errorf("record %d of the client has nonce %d", i+1, r.SequencingNonce)
		}
	}
	if d.client[1].SequencingNonce != nonce {
		t.Errorf("the client returns nonce %d, want %d", d.client[1].SequencingNonce, nonce)
	}
}

// checkTokens runs the account of a session: full at first, and back at it after what was taken was returned.
func checkTokens(t *testing.T, records []*fspb.ContactData) {
	t.Helper()
	var tokens wire.Tokens
	tokens.Start(records[0].AllowedMessages)
	for i, r := range records {
		if i > 0 {
			tokens.Add(r.AllowedMessages)
		}
		for service, n := range r.AllowedMessages {
			if i == 0 && n != 100 || i > 0 && n > 1 {
				t.Errorf("record %d grants %d tokens to %s", i, n, service)
			}
		}
	}
	if names, limited := tokens.Services(); !limited || !slices.Equal(names, []string{"echo", "system"}) {
		t.Errorf("services %q, limited %v", names, limited)
	}
}

func TestRecordedPolls(t *testing.T) {
	connections := vectors.Load(t, "testdata/session-poll.jsonl")
	if len(connections) != 3 {
		t.Fatalf("%d connections", len(connections))
	}
	if bytes.Equal(connections[1].Certificate, connections[2].Certificate) {
		t.Error("the certificate did not change with the key")
	}
	nonce := uint64(0)
	var client, server []string
	for _, e := range slices.Concat(connections[1].Exchanges(t), connections[2].Exchanges(t)) {
		if e.Request.URL.Path != "/message" || e.Cut || e.Continued {
			t.Fatalf("%s, cut %v, continued %v", e.Request.URL.Path, e.Cut, e.Continued)
		}
		request, err := wire.ReadAll(t.Context(), bytes.NewReader(e.RequestBody), wire.MaxClientRecord, nil)
		if err != nil {
			t.Fatal(err)
		}
		asked := unwrap(t, request.Bytes())
		request.Release()
		if asked.SequencingNonce != nonce {
			t.Errorf("the client returns nonce %d, want %d", asked.SequencingNonce, nonce)
		}
		replied := mustUnmarshal(t, e.ResponseBody, &fspb.ContactData{})
		if nonce = replied.SequencingNonce; nonce == 0 {
			t.Error("a reply without nonce")
		}
		if again := appendContactData(t, replied); !bytes.Equal(again, e.ResponseBody) {
			t.Errorf("written again, a reply differs:\n%x\n%x", again, e.ResponseBody)
		}
		client = append(client, said([]*fspb.ContactData{asked})...)
		server = append(server, said([]*fspb.ContactData{replied})...)
	}
	idle := func(kind string) bool { return kind == "nothing" }
	if got, want := len(client), 65; got != want {
		t.Errorf("%d polls, want %d", got, want)
	}
	wantClient := []string{"ClientInfo", "StdinServiceOutputMessage", "MessageAck", "ClientInfo", "MessageAck"}
	if got := slices.DeleteFunc(client, idle); !slices.Equal(got, wantClient) {
		t.Errorf("the client said %q, want %q", got, wantClient)
	}
	wantServer := []string{"StdinServiceInputMessage", "RekeyRequest"}
	if got := slices.DeleteFunc(server, idle); !slices.Equal(got, wantServer) {
		t.Errorf("the server said %q, want %q", got, wantServer)
	}
}

// Whatever read borders TCP makes, a session decodes to the same, and what is cut off is not taken for an end.
func TestRecordedStreamsCut(t *testing.T) {
	for _, file := range recordings(t) {
		for _, c := range vectors.Load(t, file) {
			for _, e := range c.Exchanges(t) {
				if e.Request.URL.Path != "/streaming-message" || e.Request.Header.Get("Content-Encoding") != "" {
					continue
				}
				ends := map[int]bool{len(e.RequestBody): true}
				reader := wire.NewRecordReader(bytes.NewReader(e.RequestBody), wire.FromClient(nil))
				if err := reader.ReadMagic(); err != nil {
					t.Fatal(err)
				}
				at := 4
				for _, body := range readRecords(t, reader) {
					ends[at] = true
					at += len(wire.AppendRecord(nil, body))
				}
				for cut := 4; cut <= len(e.RequestBody); cut++ {
					if err := readToEnd(e.RequestBody[:cut]); (err == io.EOF) != ends[cut] {
						t.Errorf("%s: cut at %d: %v", file, cut, err)
					}
				}
			}
		}
	}
}

func readToEnd(stream []byte) error {
	reader := wire.NewRecordReader(bytes.NewReader(stream), wire.FromClient(nil))
	err := reader.ReadMagic()
	for err == nil {
		_, err = reader.Next()
	}
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		panic(err)
	}
	return err
}
