package agent

import (
	"strings"
	"unicode/utf8"
)

// validText makes any text fit a protobuf string of at most limit bytes: what is no UTF-8 is replaced, the rest is cut. A
// long text is not kept alive by what is left of it.
func validText(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= limit {
		return text
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strings.Clone(text[:cut])
}
