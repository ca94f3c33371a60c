package agent

// A grant tells the server how many more messages each service takes: absolute numbers at the start of a session and with
// each poll, increments on later records. The numbers come from counters that outlive services and sessions, so an
// increment is never negative (G-24). Tokens cannot be called back: a service whose inbox fills up with bytes gets none
// until what is out is no more than fits.

// grant keeps, for one session, what each service's tokens came to.
type grant struct {
	accounts map[string]*account
}

// account is the tokens of one service in one session.
type account struct {
	since uint64 // messages admitted before the session
	given uint64
}

// first makes the absolute grant that opens a session, and remembers what later increments start from.
func (g *grant) first(inboxes map[string]*inbox) map[string]uint64 {
	g.accounts = make(map[string]*account, len(inboxes))
	return g.next(inboxes)
}

// next makes the increments for a later record. A service that is new since the record before gets the absolute form.
func (g *grant) next(inboxes map[string]*inbox) map[string]uint64 {
	out := make(map[string]uint64, len(inboxes))
	for name, box := range inboxes {
		admitted, spare := box.account()
		if g.accounts[name] == nil {
			g.accounts[name] = &account{since: admitted}
		}
		out[name] = g.accounts[name].raise(admitted, spare)
	}
	return out
}

// raise gives as many tokens as make the unused ones spare, and returns how many those are.
func (a *account) raise(admitted, spare uint64) uint64 {
	used := admitted - a.since
	a.given = max(a.given, used) // broadcasts are admitted without
	unused := a.given - used
	if unused >= spare {
		return 0
	}
	a.given += spare - unused
	return spare - unused
}
