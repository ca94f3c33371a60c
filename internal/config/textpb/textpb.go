// Package textpb reads configuration files in the protobuf text format and says exactly what is wrong with them.
//
// The protobuf library stops at the first fault and forgets where fields stood. This package finds all faults of a file
// in one go (unknown names with the nearest known one, wrong values, repeated fields), and keeps the place of every field,
// so that a rule broken later ("listen_address is not host:port") can still name its line. The library stays the judge of
// what is valid: a file is accepted exactly when it accepts it.
//
// No message of this package contains a value from the file, since the values may be keys and passwords.
//
// The endpoint's agent links this package: it imports nothing but protobuf.
package textpb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// MaxFileBytes bounds a configuration file. Certificate bundles are the largest part of one; a hundred certificates take
// a twentieth of it.
const MaxFileBytes = 4 << 20

// ReadFile reads a file of at most MaxFileBytes. Its errors are of type Problem.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileProblem(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fileProblem(path, err)
	}
	if len(b) > MaxFileBytes {
		return nil, Problem{File: path, Message: fmt.Sprintf("larger than %d bytes", MaxFileBytes),
			Remedy: "check that this is the right file"}
	}
	return b, nil
}

func fileProblem(path string, err error) Problem {
	p := Problem{File: path, Message: "cannot be read: " + reason(err)}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Remedy = "create it or name another path"
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "let the user that the process runs as read it"
	}
	return p
}

// reason is the error without the path that a PathError repeats.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return err.Error()
}

// Document is a text-format file after reading. It is immutable and safe for concurrent use.
type Document struct {
	file   string
	text   []byte
	fields []*node
	faults Problems
	blamed map[string]bool // paths that faults are about; rules broken by their absence need no second mention
}

// Parse reads text strictly into m. The document knows the faults; what can be read around them is in m, so that the
// caller can go on and report broken rules as well.
func Parse(file string, text []byte, m proto.Message) *Document {
	d := &Document{file: file, text: text, blamed: map[string]bool{}}
	var err error
	if d.fields, err = scan(text); err != nil {
		d.syntaxFault(err)
		proto.Reset(m)
		return d
	}
	c := &checker{doc: d, clean: bytes.Clone(text)}
	c.fields(d.fields, m.ProtoReflect().Descriptor(), "")
	if err := prototext.Unmarshal(c.clean, m); err != nil {
		d.libraryFault(err)
		proto.Reset(m)
	}
	return d
}

// ParseLenient reads text into m as the original reads communicator.txt and textservices: fields of unknown name are
// passed over, every other fault is an error, of type Problem.
func ParseLenient(file string, text []byte, m proto.Message) error {
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, m); err != nil {
		d := &Document{file: file, text: text, blamed: map[string]bool{}}
		d.libraryFault(err)
		return d.faults[0]
	}
	return nil
}

// Faults returns what is wrong with the text itself.
func (d *Document) Faults() Problems { return d.faults.sorted() }

// File returns the path as it was given.
func (d *Document) File() string { return d.file }

// Report collects broken rules of a document. It is not safe for concurrent use.
type Report struct {
	doc      *Document
	problems Problems
}

// NewReport returns an empty report on d.
func (d *Document) NewReport() *Report { return &Report{doc: d} }

// Error notes that the field breaks a rule. A field that is absent is located at the message that should hold it.
func (r *Report) Error(field, message, remedy string) {
	if r.doc.isBlamed(field) {
		return
	}
	r.problems = append(r.problems, r.doc.problem(field, message, remedy))
}

// Warn notes that the field's value is unwise.
func (r *Report) Warn(field, message, remedy string) {
	p := r.doc.problem(field, message, remedy)
	p.Warning = true
	r.problems = append(r.problems, p)
}

// Add notes a problem that was found elsewhere, such as in a file that the document names.
func (r *Report) Add(p Problem) { r.problems = append(r.problems, p) }

// Problems returns what was noted, in the order of the file.
func (r *Report) Problems() Problems { return r.problems.sorted() }

// Failed says whether anything but warnings was noted.
func (r *Report) Failed() bool { return r.problems.Err() != nil }

func (d *Document) problem(field, message, remedy string) Problem {
	line, column := d.position(d.find(field))
	return Problem{File: d.file, Line: line, Column: column, Field: field, Message: message, Remedy: remedy}
}

// Has says whether the field is written in the file, whatever its value.
func (d *Document) Has(field string) bool {
	_, exact := d.lookup(field)
	return exact
}

// find returns the offset of the field or of the nearest message around it.
func (d *Document) find(field string) int {
	pos, _ := d.lookup(field)
	return pos
}

func (d *Document) lookup(field string) (pos int, exact bool) {
	nodes := d.fields
	for name := range strings.SplitSeq(field, ".") {
		n := pick(nodes, name)
		if n == nil {
			return pos, false
		}
		pos, nodes = n.pos, content(n)
	}
	return pos, true
}

// content returns a node's fields; those of an Any stand one level deeper, below its type.
func content(n *node) []*node {
	if len(n.children) == 1 && strings.HasPrefix(n.children[0].name, "[") {
		return n.children[0].children
	}
	return n.children
}

// pick returns the field of that name; "name[2]" is its third occurrence, in whatever notation.
func pick(nodes []*node, name string) *node {
	want := 0
	if base, index, ok := strings.Cut(strings.TrimSuffix(name, "]"), "["); ok {
		name = base
		want, _ = strconv.Atoi(index)
	}
	for _, n := range nodes {
		if n.name != name {
			continue
		}
		elements := []*node{n}
		if n.kind == list {
			elements = n.children
		}
		if want < len(elements) {
			return elements[want]
		}
		want -= len(elements)
	}
	return nil
}

// position turns an offset into a line and a column, both from 1.
func (d *Document) position(pos int) (line, column int) {
	before := d.text[:min(pos, len(d.text))]
	line = bytes.Count(before, []byte("\n")) + 1
	return line, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
}

// isBlamed says whether a fault was found in the field or in a message around it.
func (d *Document) isBlamed(field string) bool {
	for {
		if d.blamed[field] {
			return true
		}
		i := strings.LastIndexByte(field, '.')
		if i < 0 {
			return false
		}
		field = field[:i]
	}
}

func (d *Document) syntaxFault(err error) {
	p := Problem{File: d.file, Message: err.Error()}
	if se, ok := errors.AsType[*syntaxError](err); ok {
		p.Line, p.Column = d.position(se.pos)
		p.Remedy = se.remedy
	}
	d.faults = append(d.faults, p)
}

// libraryPlace finds the place in an error of the protobuf library. Its wording is not stable, and it quotes values, so
// nothing else of it is used.
var libraryPlace = regexp.MustCompile(`\(line (\d+):(\d+)\)`)

func (d *Document) libraryFault(err error) {
	p := Problem{File: d.file, Message: "not valid in the protobuf text format",
		Remedy: "compare this place with the sample configuration"}
	if m := libraryPlace.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Column, _ = strconv.Atoi(m[2])
	}
	d.faults = append(d.faults, p)
}
