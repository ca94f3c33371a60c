package clientcert

import "strings"

// xfccKey is the key whose value is a certificate.
const xfccKey = "Cert"

// xfccCertificate finds the encoded certificate in an x-forwarded-client-cert header: the value of the first Cert, or the
// whole header when there is none or it is empty.
//
//	header   element *( "," element )    one for each hop
//	element  pair *( ";" pair )
//	pair     key "=" value               key: everything up to "="; the value may be in double quotes
//
// A backslash takes the next character of a value literally, in quotes or not. Commas and semicolons in quotes belong to
// the value. An empty key, or a backslash with nothing after it, ends the search.
func xfccCertificate(header string) string {
	for rest := header; ; {
		key, tail, found := strings.Cut(rest, "=")
		if !found || key == "" {
			return header
		}
		value, after, ok := xfccValue(tail)
		switch {
		case !ok:
			return header
		case key == xfccKey && value == "":
			return header
		case key == xfccKey:
			return value
		}
		rest = after
	}
}

// xfccValue reads a value to the end of its pair. It is not ok when a backslash has nothing after it.
func xfccValue(text string) (value, rest string, ok bool) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			if i++; i == len(text) {
				return "", "", false
			}
			b.WriteByte(text[i])
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ';'):
			return b.String(), text[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", true
}
