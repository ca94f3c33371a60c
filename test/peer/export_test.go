package peer

import "io"

// RecordWriterForTest writes records to body as a session does.
func RecordWriterForTest(body io.Writer, deflate bool) func(record []byte) error {
	return newRecordWriter(body, deflate).writeRecord
}
