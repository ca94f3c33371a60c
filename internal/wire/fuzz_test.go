package wire_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/vectors"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// recordedBodies is what clients and servers of the original sent, by encoding.
func recordedBodies(tb testing.TB) (plain, deflated, replies [][]byte) {
	tb.Helper()
	for _, file := range recordings(tb) {
		for _, c := range vectors.Load(tb, file) {
			for _, e := range c.Exchanges(tb) {
				switch encoding, err := wire.DecodeEncoding(e.Request.Header); {
				case err != nil:
					tb.Fatal(err)
				case encoding == wire.EncodingDeflate:
					deflated = append(deflated, e.RequestBody)
				case e.Request.Method == "POST":
					plain = append(plain, e.RequestBody)
				}
				replies = append(replies, e.ResponseBody)
			}
		}
	}
	if len(plain) == 0 || len(deflated) == 0 {
		tb.Fatal("the recordings have no bodies")
	}
	return plain, deflated, replies
}

func FuzzRecordReader(f *testing.F) {
	plain, _, replies := recordedBodies(f)
	for _, stream := range append(plain, replies...) {
		f.Add(stream, true)
		f.Add(stream, false)
	}
	f.Add([]byte("\x01\x10\xee\xf1\x00"), true)
	f.Add([]byte("\x01\x10\xee\xf1\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), true)
	f.Fuzz(func(t *testing.T, stream []byte, fromClient bool) {
		budget := wire.NewBudget(1 << 26)
		cfg := wire.FromServer(budget)
		if fromClient {
			cfg = wire.FromClient(budget)
		}
		rebuilt, err := rebuild(bytes.NewReader(stream), cfg, fromClient)
		slowly, slowErr := rebuild(iotest.OneByteReader(bytes.NewReader(stream)), cfg, fromClient)
		if !bytes.Equal(rebuilt, slowly) || err.Error() != slowErr.Error() {
			t.Errorf("bytewise: %x, %v\nat once:  %x, %v", slowly, slowErr, rebuilt, err)
		}
		if !bytes.HasPrefix(stream, rebuilt) {
			t.Errorf("what was read is not what came: %x", rebuilt)
		}
		if err == io.EOF && len(rebuilt) != len(stream) {
			t.Errorf("%d of %d bytes read, then io.EOF", len(rebuilt), len(stream))
		}
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are still in use", used)
		}
	})
}

// rebuild reads a stream and writes what it read.
func rebuild(from io.Reader, cfg wire.ReaderConfig, magic bool) (rebuilt []byte, err error) {
	reader := wire.NewRecordReader(from, cfg)
	if magic {
		if err := reader.ReadMagic(); err != nil {
			return nil, err
		}
		rebuilt = wire.AppendMagic(rebuilt)
	}
	for {
		record, err := reader.Next()
		if err != nil {
			return rebuilt, err
		}
		rebuilt = wire.AppendRecord(rebuilt, record.Bytes())
		record.Release()
	}
}

// FuzzInflate compares with the standard library, which reads all at once and keeps its window.
func FuzzInflate(f *testing.F) {
	plain, deflated, _ := recordedBodies(f)
	for _, stream := range deflated {
		f.Add(stream, uint16(1))
	}
	for _, body := range plain[:2] {
		f.Add(wire.AppendDeflated(nil, body), uint16(7))
	}
	f.Add([]byte("\x78\x9c\x00\x00\x00\xff\xff\x00\x00\x00\xff\xff\x01\x00\x00\xff\xff\x00\x00\x00\x01"), uint16(3))
	f.Fuzz(func(t *testing.T, stream []byte, step uint16) {
		const limit = 1 << 20
		wantErr := errors.New("no header")
		var want []byte
		if z, err := zlib.NewReader(bytes.NewReader(stream)); err == nil {
			want, wantErr = io.ReadAll(io.LimitReader(z, limit))
		}
		for name, from := range map[string]io.Reader{
			"at once":  bytes.NewReader(stream),
			"bytewise": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			got, err := inflate(from, limit, int(step)+1)
			if wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("%s: %d bytes, error %v, want %d bytes", name, len(got), err, len(want))
			}
			if !bytes.HasPrefix(want, got) {
				t.Errorf("%s: other content", name)
			}
			if wantErr != nil && !errors.Is(wantErr, io.ErrUnexpectedEOF) && err == nil {
				t.Errorf("%s: no error, want %v", name, wantErr)
			}
		}
	})
}

// inflate reads up to limit bytes, step by step.
func inflate(from io.Reader, limit, step int) (got []byte, err error) {
	z, err := wire.NewInflater(from)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	p := make([]byte, step)
	for len(got) < limit && err == nil {
		var n int
		n, err = z.Read(p[:min(step, limit-len(got))])
		got = append(got, p[:n]...)
	}
	if err == io.EOF {
		err = nil
	}
	return got, err
}

func FuzzTokens(f *testing.F) {
	plain, _, _ := recordedBodies(f)
	for _, stream := range plain {
		reader := wire.NewRecordReader(bytes.NewReader(stream), wire.FromClient(nil))
		if reader.ReadMagic() != nil {
			continue
		}
		var grants []uint64
		for {
			record, err := reader.Next()
			if err != nil {
				break
			}
			var wrapped fspb.WrappedContactData
			var data fspb.ContactData
			if proto.Unmarshal(record.Bytes(), &wrapped) != nil || proto.Unmarshal(wrapped.ContactData, &data) != nil {
				f.Fatal("a recorded record is malformed")
			}
			grants = append(grants, data.AllowedMessages["system"])
		}
		f.Add(grants[0], grants[1], grants[len(grants)-1], uint8(3))
	}
	f.Add(uint64(3), wrapped(70), uint64(2), uint8(9)) // G-24
	f.Add(uint64(math.MaxUint64), uint64(1), uint64(1)<<63, uint8(1))
	f.Fuzz(func(t *testing.T, first, second, third uint64, takes uint8) {
		tokens := startTokens(grant{"system": first})
		for _, increment := range []uint64{second, third} {
			before := tokens.Allowance("system")
			raised := tokens.Add(grant{"system": increment})
			after := tokens.Allowance("system")
			if raised != (after > before) {
				t.Errorf("%d + %d = %d, raised %v", before, increment, after, raised)
			}
			if falls := increment > 1<<63; falls && after > before || !falls && after < before {
				t.Errorf("%d + %d = %d", before, increment, after)
			}
			for range takes {
				left := tokens.Allowance("system")
				if taken := tokens.Take("system"); taken != (left > 0) || taken && tokens.Allowance("system") != left-1 {
					t.Errorf("Take with %d left: %v, %d left after it", left, taken, tokens.Allowance("system"))
				}
			}
		}
	})
}
