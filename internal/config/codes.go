package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// codeNames are the gRPC status codes by number, as the protocol fixes them.
var codeNames = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// codes turns names of status codes into their numbers.
func codes(r *textpb.Report, field string, names []string) []uint32 {
	if len(names) == 0 {
		names = permanentCodes
	}
	var numbers []uint32
	for i, name := range names {
		place := fmt.Sprintf("%s[%d]", field, i)
		switch n := slices.Index(codeNames, name); n {
		case -1:
			remedy := "known: " + strings.Join(codeNames[1:], ", ")
			if near := textpb.Nearest(name, codeNames); near != "" {
				remedy = fmt.Sprintf("did you mean %s?", near)
			}
			r.Error(place, fmt.Sprintf("%q is not a gRPC status code", name), remedy)
		case 0:
			r.Error(place, "OK is not a refusal", "remove it")
		default:
			numbers = append(numbers, uint32(n))
		}
	}
	return numbers
}
