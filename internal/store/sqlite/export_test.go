package sqlite

import "github.com/farspeak/farspeak/internal/store/sqlbase"

// Classify says what an error means.
func Classify(err error) sqlbase.Fault { return classify(err) }
