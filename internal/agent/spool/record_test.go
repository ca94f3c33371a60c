package spool

import (
	"bytes"
	"testing"
)

// Whatever is in a segment, scan ends, and what it finds is what would have been written there.
func FuzzScan(f *testing.F) {
	m := mark{'t', 'e', 's', 't', 'm', 'a', 'r', 'k'}
	good := appendRecord(nil, m, record{kind: kindMessage, tag: 2, id: 7, body: []byte("hello")})
	f.Add(good)
	f.Add(appendRecord(good, m, removedRecord([]uint64{7, 8})))
	f.Add(append(m[:], good...))
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		covered, end := 0, 0
		damaged := scan(data, m, func(offset int, r record) {
			again := appendRecord(nil, m, r)
			if offset < end || !bytes.Equal(data[offset:offset+4], again[:4]) || len(again) != r.size() {
				t.Fatalf("record at %d is not what it was read from", offset)
			}
			if r.kind == kindRemoved && len(r.removed())*8 != len(r.body) {
				t.Fatalf("removed %v", r.removed())
			}
			end = offset + r.size()
			covered += r.size()
		})
		if damaged != (covered != len(data)) {
			t.Errorf("damaged: %t, with %d of %d bytes in records", damaged, covered, len(data))
		}
		behind := 0
		scan(append(bytes.Clone(data), good...), m, func(_ int, r record) {
			if string(r.body) == "hello" && r.id == 7 {
				behind++
			}
		})
		if behind == 0 && damaged == false {
			t.Error("a record behind others is not found")
		}
	})
}
