package deploy_test

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// knownNames returns the names of all fields of all linked messages of the protocol.
func knownNames(t *testing.T) []string {
	t.Helper()
	var names []string
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		fields := mt.Descriptor().Fields()
		for i := range fields.Len() {
			names = append(names, fields.Get(i).TextName())
		}
		return true
	})
	if len(names) == 0 {
		t.Fatal("no message is linked")
	}
	return names
}
