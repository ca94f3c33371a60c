package textpb

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const anyName = "google.protobuf.Any"

// checker compares the scanned fields with the message type, notes every fault in the document, and blanks the faulty
// fields in its copy of the text, so that the rest can still be read.
type checker struct {
	doc   *Document
	clean []byte
}

// fields checks the fields of one message, whose path is "" or ends with a dot.
func (c *checker) fields(nodes []*node, md protoreflect.MessageDescriptor, path string) {
	seen := map[protoreflect.Name]*node{} // singular fields and oneofs
	index := map[string]int{}             // occurrences of repeated fields
	for _, n := range nodes {
		fd := md.Fields().ByTextName(n.name)
		if fd == nil && !md.ReservedNames().Has(protoreflect.Name(n.name)) {
			c.unknown(n, md, path)
		}
		if fd == nil {
			continue
		}
		if !c.once(n, fd, seen, path) {
			continue
		}
		c.field(n, fd, path, index)
	}
}

// once notes singular fields and oneofs that are given a second time.
func (c *checker) once(n *node, fd protoreflect.FieldDescriptor, seen map[protoreflect.Name]*node, path string) bool {
	if fd.IsList() || fd.IsMap() {
		return true
	}
	name, remedy := fd.Name(), "keep one of them"
	if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() {
		name, remedy = od.Name(), fmt.Sprintf("keep one of the fields of %s", od.Name())
	}
	first := seen[name]
	if first == nil {
		seen[name] = n
		return true
	}
	line, _ := c.doc.position(first.pos)
	what := "given a second time"
	if first.name != n.name {
		what = "excluded by " + first.name
	}
	c.fault(n, path+n.name, fmt.Sprintf("%s, first on line %d", what, line), remedy)
	return false
}

func (c *checker) field(n *node, fd protoreflect.FieldDescriptor, path string, index map[string]int) {
	if fd.IsMap() {
		return // no configuration message has one; left to the library
	}
	elements := []*node{n}
	if n.kind == list && fd.IsList() {
		elements = n.children
	}
	for _, e := range elements {
		field := path + n.name
		if fd.IsList() {
			field = fmt.Sprintf("%s[%d]", field, index[n.name])
			index[n.name]++
		}
		c.value(n, e, fd, field)
	}
}

// value checks one value e of field n.
func (c *checker) value(n, e *node, fd protoreflect.FieldDescriptor, field string) {
	switch md := fd.Message(); {
	case md != nil && e.kind != message:
		c.fault(n, field, "holds a message, not a single value", fmt.Sprintf("write %s { ... }", n.name))
	case md != nil && md.FullName() == anyName:
		c.any(n, e, field)
	case md != nil:
		c.fields(e.children, md, field+".")
	case e.kind != scalar:
		c.fault(n, field, "does not hold a message or list", "write "+want(fd))
	case !n.colon:
		c.fault(n, field, "a colon is missing after the name", fmt.Sprintf("write %s: ...", n.name))
	case !c.readable(e, fd):
		c.fault(n, field, wrongValue(e, fd), "write "+want(fd))
	}
}

// any checks an Any in either notation. The type has to be one that this program knows.
func (c *checker) any(n, e *node, field string) {
	if len(e.children) == 0 || !strings.HasPrefix(e.children[0].name, "[") {
		c.fields(e.children, anyDescriptor(), field+".")
		return
	}
	content := e.children[0]
	if len(e.children) > 1 {
		c.fault(n, field, "holds more than one thing", "keep the first")
		return
	}
	name := strings.Trim(content.name, "[]")
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(name)
	if err != nil {
		c.fault(n, field, fmt.Sprintf("unknown type %s", name[strings.LastIndexByte(name, '/')+1:]),
			"check the spelling between the brackets, such as "+
				"[type.googleapis.com/fleetspeak.grpcservice.Config]")
		return
	}
	if content.kind != message {
		c.fault(n, field, "holds a message, not a single value", fmt.Sprintf("write %s { ... }", content.name))
		return
	}
	c.fields(content.children, mt.Descriptor(), field+".")
}

func anyDescriptor() protoreflect.MessageDescriptor {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(anyName)
	if err != nil {
		panic("google.protobuf.Any is not linked, though a field has this type: " + err.Error())
	}
	return mt.Descriptor()
}

// readable asks the library whether it takes this value for this field, by giving it nothing else.
func (c *checker) readable(e *node, fd protoreflect.FieldDescriptor) bool {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(fd.ContainingMessage().FullName())
	if err != nil {
		return true // not a registered type: the library judges the whole file later
	}
	text := fmt.Sprintf("%s: %s", fd.TextName(), c.doc.text[e.value:e.valueEnd])
	opts := prototext.UnmarshalOptions{AllowPartial: true}
	return opts.Unmarshal([]byte(text), mt.New().Interface()) == nil
}

func (c *checker) unknown(n *node, md protoreflect.MessageDescriptor, path string) {
	known := make([]string, md.Fields().Len())
	for i := range known {
		known[i] = md.Fields().Get(i).TextName()
	}
	remedy := "known here: " + strings.Join(known, ", ")
	if near := Nearest(n.name, known); near != "" {
		remedy = fmt.Sprintf("did you mean %s?", near)
		c.doc.blamed[path+near] = !c.doc.Has(path + near)
	}
	what := "unknown field"
	if n.name[0] >= '0' && n.name[0] <= '9' {
		what = "a field is written by its name, not by its number"
	}
	c.fault(n, path+short(n.name), what, remedy)
}

// short cuts what is too long for a field's name: quotes gone wrong can turn a piece of a key into a name.
func short(name string) string {
	const longest = 40
	if len(name) <= longest {
		return name
	}
	return name[:8] + "..."
}

func (c *checker) fault(n *node, field, message, remedy string) {
	line, column := c.doc.position(n.pos)
	c.doc.faults = append(c.doc.faults, Problem{
		File: c.doc.file, Line: line, Column: column, Field: field, Message: message, Remedy: remedy,
	})
	c.doc.blamed[field] = true
	for i := n.pos; i < n.end; i++ {
		if c.clean[i] != '\n' {
			c.clean[i] = ' '
		}
	}
}

func wrongValue(e *node, fd protoreflect.FieldDescriptor) string {
	switch k := fd.Kind(); {
	case k == protoreflect.StringKind && !e.quoted, k == protoreflect.BytesKind && !e.quoted:
		return "text has to stand in quotes"
	case k == protoreflect.StringKind, k == protoreflect.BytesKind:
		return "holds a bad escape or bytes that are not UTF-8"
	case e.quoted:
		return "wrong kind of value: text in quotes"
	}
	return "not a possible value"
}

// want describes the values of a field.
func want(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind, protoreflect.BytesKind:
		return `text in quotes, such as "..."`
	case protoreflect.EnumKind:
		names := make([]string, fd.Enum().Values().Len())
		for i := range names {
			names[i] = string(fd.Enum().Values().Get(i).Name())
		}
		return strings.Join(names, " or ")
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "a number"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return "a whole number from 0 to 4294967295"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "a whole number, not negative"
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return "{ ... }"
	}
	return "a whole number"
}
