package admin

// MaxCalls is a bound that tests reach.
const MaxCalls = maxCalls

// Subject is what the audit log says of a request.
var Subject = subject

// Pretend counts calls that are not there, and the bytes of their requests.
func (s *Server) Pretend(calls, bytes int64) {
	s.admission.calls.Add(calls)
	s.admission.bytes.Add(bytes)
}

// Load is how many calls are under way, and the bytes of their requests.
func (s *Server) Load() (calls, bytes int64) {
	return s.admission.calls.Load(), s.admission.bytes.Load()
}
