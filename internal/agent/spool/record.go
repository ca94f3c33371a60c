package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A record is, little endian: the mark of its file (8 bytes), CRC-32C of all that follows (4), length of the body (4),
// number of the message (8), kind (1), tag (1), zero (2), body.
const (
	headerSize = 28
	crcOffset  = markSize
	crcEnd     = crcOffset + 4
	// maxBody bounds a record: a message, or the numbers of those removed.
	maxBody = MaxMessage
)

const (
	kindMessage = 1
	kindRemoved = 2 // the body is a list of numbers of 8 bytes
)

const markSize = 8

// mark begins the records of one file.
type mark [markSize]byte

type record struct {
	kind, tag byte
	id        uint64
	body      []byte
}

var (
	crcTable   = crc32.MakeTable(crc32.Castagnoli)
	errDamaged = errors.New("damaged record")
)

func (r record) size() int { return headerSize + len(r.body) }

// appendRecord appends the record's bytes to b.
func appendRecord(b []byte, m mark, r record) []byte {
	begin := len(b)
	b = append(b, m[:]...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.body)))
	b = binary.LittleEndian.AppendUint64(b, r.id)
	b = append(b, r.kind, r.tag, 0, 0)
	b = append(b, r.body...)
	sum := crc32.Checksum(b[begin+crcEnd:], crcTable)
	binary.LittleEndian.PutUint32(b[begin+crcOffset:], sum)
	return b
}

// parseRecord reads the record at the beginning of b. Its body is a part of b.
func parseRecord(b []byte, m mark) (record, error) {
	if len(b) < headerSize || !bytes.Equal(b[:markSize], m[:]) {
		return record{}, errDamaged
	}
	length := binary.LittleEndian.Uint32(b[12:])
	if length > maxBody || len(b) < headerSize+int(length) {
		return record{}, errDamaged
	}
	b = b[:headerSize+int(length)]
	if crc32.Checksum(b[crcEnd:], crcTable) != binary.LittleEndian.Uint32(b[crcOffset:]) {
		return record{}, errDamaged
	}
	r := record{id: binary.LittleEndian.Uint64(b[16:]), kind: b[24], tag: b[25], body: b[headerSize:]}
	if r.kind == kindMessage || r.kind == kindRemoved && length%8 == 0 {
		return r, nil
	}
	return record{}, errDamaged
}

// scan calls each for every valid record of a segment, with its place. It goes on behind damages, and reports whether there
// were any.
func scan(data []byte, m mark, each func(offset int, r record)) (damaged bool) {
	for at := 0; at < len(data); {
		r, err := parseRecord(data[at:], m)
		if err == nil {
			each(at, r)
			at += r.size()
			continue
		}
		damaged = true
		next := bytes.Index(data[at+1:], m[:])
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return damaged
}

func removedRecord(ids []uint64) record {
	body := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		body = binary.LittleEndian.AppendUint64(body, id)
	}
	return record{kind: kindRemoved, body: body}
}

func (r record) removed() []uint64 {
	var ids []uint64
	for b := r.body; len(b) >= 8; b = b[8:] {
		ids = append(ids, binary.LittleEndian.Uint64(b))
	}
	return ids
}
