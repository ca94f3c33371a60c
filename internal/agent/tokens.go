package agent

// A grant tells the server how many more messages each service takes: absolute numbers at the start of a session and with
// each poll, increments on later records. The numbers come from counters that outlive services and sessions, so an
// increment is never negative (G-24).

// grant keeps, for one session, up to where each service's tokens were returned.
type grant struct {
	told map[string]uint64 // messages taken, as of the last record
}

// first makes the absolute grant that opens a session, and remembers what later increments start from.
func (g *grant) first(inboxes map[string]*inbox) map[string]uint64 {
	g.told = make(map[string]uint64, len(inboxes))
	out := make(map[string]uint64, len(inboxes))
	for name, box := range inboxes {
		out[name] = g.absolute(name, box)
	}
	return out
}

// next makes the increments for a later record. A service that is new since the record before gets the absolute form.
func (g *grant) next(inboxes map[string]*inbox) map[string]uint64 {
	out := make(map[string]uint64, len(inboxes))
	for name, box := range inboxes {
		before, known := g.told[name]
		if !known {
			out[name] = g.absolute(name, box)
			continue
		}
		_, taken := box.counts()
		out[name] = taken - before
		g.told[name] = taken
	}
	return out
}

func (g *grant) absolute(name string, box *inbox) uint64 {
	admitted, taken := box.counts()
	g.told[name] = taken
	return grantedTokens - min(admitted-taken, grantedTokens)
}
