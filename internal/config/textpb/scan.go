package textpb

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds nested messages. No configuration message nests a tenth as deep.
const maxDepth = 100

type kind int

const (
	scalar kind = iota
	message
	list
)

// node is a field, or an element of a bracketed list, and where it stands in the file.
type node struct {
	name     string // field name, number, or "[type/url]"; empty for list elements
	pos, end int    // byte range with name, value and a separator after it
	value    int    // where the value begins
	valueEnd int
	kind     kind
	colon    bool    // a colon follows the name
	quoted   bool    // a scalar written as a string
	children []*node // fields of a message, elements of a list
}

// syntaxError is a place where the text stops being the text format.
type syntaxError struct {
	pos    int
	reason string
	remedy string
}

func (e *syntaxError) Error() string { return e.reason }

// scanner splits a text-format file into fields. It accepts all that the protobuf library accepts and keeps what that
// library forgets: where each field stands. It does not look at values; the library judges those.
type scanner struct {
	text     []byte
	pos      int
	tokenEnd int // end of the token before pos, without the space after it
	depth    int
}

// scan returns the fields of a whole file.
func scan(text []byte) ([]*node, error) {
	s := &scanner{text: text}
	s.skipSpace()
	return s.fields(0, 0)
}

// fields reads fields up to the closing bracket, or to the end of the text when closing is 0.
func (s *scanner) fields(closing byte, opened int) ([]*node, error) {
	var nodes []*node
	for {
		switch c := s.peek(); {
		case s.atEnd() && closing == 0:
			return nodes, nil
		case s.atEnd():
			return nil, &syntaxError{opened, "this bracket is never closed", fmt.Sprintf("add the missing %q", closing)}
		case closing != 0 && c == closing:
			s.advance(1)
			return nodes, nil
		}
		n, err := s.field()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
}

func (s *scanner) field() (*node, error) {
	n := &node{pos: s.pos}
	if err := s.name(n); err != nil {
		return nil, err
	}
	if s.peek() == ':' {
		n.colon = true
		s.advance(1)
	}
	if err := s.fieldValue(n); err != nil {
		return nil, err
	}
	if c := s.peek(); c == ',' || c == ';' {
		s.advance(1)
	}
	n.end = s.tokenEnd
	return n, nil
}

func (s *scanner) name(n *node) error {
	if s.peek() == '[' {
		return s.typeName(n)
	}
	size := 0
	for s.pos+size < len(s.text) && isWord(s.text[s.pos+size]) {
		size++
	}
	if size == 0 {
		return &syntaxError{s.pos, "a field name should stand here", "check the quotes and brackets before this place"}
	}
	n.name = string(s.text[s.pos : s.pos+size])
	s.advance(size)
	return nil
}

// typeName reads the name of an Any's content, which may be spread over lines.
func (s *scanner) typeName(n *node) error {
	opened := s.pos
	name := []byte{'['}
	for s.advance(1); ; s.advance(1) {
		switch c := s.peek(); {
		case s.atEnd() || c == '{' || c == '<' || c == '"':
			return &syntaxError{opened, "this bracket is never closed", `write [type.googleapis.com/full.type.Name]`}
		case c == ']':
			s.advance(1)
			n.name = string(append(name, ']'))
			return nil
		default:
			name = append(name, c)
		}
	}
}

func (s *scanner) fieldValue(n *node) error {
	n.value = s.pos
	if s.peek() != '[' {
		return s.element(n)
	}
	n.kind = list
	s.advance(1)
	for first := true; ; first = false {
		if s.atEnd() {
			return &syntaxError{n.value, "this list is never closed", `add the missing "]"`}
		}
		if first && s.peek() == ']' {
			break
		}
		item := &node{pos: s.pos, value: s.pos}
		if err := s.element(item); err != nil {
			return err
		}
		item.end = item.valueEnd
		n.children = append(n.children, item)
		if s.peek() == ',' {
			s.advance(1)
			continue
		}
		if s.peek() == ']' {
			break
		}
		if !s.atEnd() {
			return &syntaxError{s.pos, "list elements are separated by commas", `write "," or "]" here`}
		}
	}
	s.advance(1)
	n.valueEnd = s.tokenEnd
	return nil
}

// element reads a message or a scalar.
func (s *scanner) element(n *node) error {
	switch c := s.peek(); {
	case s.atEnd():
		return &syntaxError{s.pos, "the file ends where a value should stand", "add the value"}
	case c == '{' || c == '<':
		return s.message(n, c)
	case c == '"' || c == '\'':
		return s.strings(n)
	default:
		return s.word(n)
	}
}

func (s *scanner) message(n *node, opening byte) error {
	if s.depth++; s.depth > maxDepth {
		return &syntaxError{s.pos, "messages are nested too deeply", "check the brackets"}
	}
	n.kind = message
	closing := byte('}')
	if opening == '<' {
		closing = '>'
	}
	s.advance(1)
	children, err := s.fields(closing, n.value)
	if err != nil {
		return err
	}
	n.children, n.valueEnd = children, s.tokenEnd
	s.depth--
	return nil
}

// strings reads one or more adjacent quoted strings.
func (s *scanner) strings(n *node) error {
	n.quoted = true
	for c := s.peek(); !s.atEnd() && (c == '"' || c == '\''); c = s.peek() {
		opened := s.pos
		i := s.pos + 1
		for ; i < len(s.text) && s.text[i] != c; i++ {
			if s.text[i] == '\n' {
				return &syntaxError{opened, "this string does not end on its line", `close the quote; inside strings a line break is written \n`}
			}
			if s.text[i] == '\\' {
				i++
			}
		}
		if i >= len(s.text) {
			return &syntaxError{opened, "this string never ends", "close the quote"}
		}
		s.pos = i
		s.advance(1)
	}
	n.valueEnd = s.tokenEnd
	return nil
}

// word reads a number or a name; a minus may stand apart from it.
func (s *scanner) word(n *node) error {
	if s.peek() == '-' {
		s.advance(1)
	}
	size := 0
	for s.pos+size < len(s.text) && (isWord(s.text[s.pos+size]) || s.isNumberSign(s.pos+size)) {
		size++
	}
	if size == 0 {
		return &syntaxError{s.pos, "a value should stand here", "write a value, in quotes when it is text"}
	}
	s.advance(size)
	n.valueEnd = s.tokenEnd
	return nil
}

// isNumberSign says whether the byte at i is the point of a fraction or the sign of an exponent.
func (s *scanner) isNumberSign(i int) bool {
	switch s.text[i] {
	case '.':
		return true
	case '+', '-':
		return i > s.pos && (s.text[i-1] == 'e' || s.text[i-1] == 'E')
	}
	return false
}

func (s *scanner) atEnd() bool { return s.pos >= len(s.text) }

// peek returns the byte at hand, 0 at the end.
func (s *scanner) peek() byte {
	if s.atEnd() {
		return 0
	}
	return s.text[s.pos]
}

// advance passes n bytes and the white space and comments after them.
func (s *scanner) advance(n int) {
	s.pos += n
	s.tokenEnd = s.pos
	s.skipSpace()
}

func (s *scanner) skipSpace() {
	for !s.atEnd() {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			i := bytes.IndexByte(s.text[s.pos:], '\n')
			if i < 0 {
				i = len(s.text) - s.pos
			}
			s.pos += i
		default:
			return
		}
	}
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf
}
