package load

// Plot draws.
func Plot(path string, r *Result) error { return nil }
