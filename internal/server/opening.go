package server

// opening is what a session has to catch up with once record 0 was answered.
type opening struct {
	first handout  // what went along with record 0
	late  []func() // pushes of messages that are counted as handed out already, and so are not fetched again
}

// opened lets pushes through, and catches up with what came while the session was opening.
func (n *session) opened() {
	n.mu.Lock()
	missed := n.opening
	n.opening = nil
	refused := n.blacklisted && !n.rekeyed
	n.mu.Unlock()
	if refused {
		n.server.pushes.start(n, n.askForKey)
	}
	if unrecorded := n.written(missed.first, missed.first); unrecorded.empty() {
		n.finishFetch(false)
	} else {
		n.server.pushes.start(n, func() {
			n.recordAttempts(unrecorded)
			n.finishFetch(false)
		})
	}
	for _, push := range missed.late {
		n.server.pushes.start(n, push)
	}
	n.server.broadcasts.offer(n)
}

// pushWhenOpen runs push in a goroutine, once the session is open. It runs it, too, when the session does not get that far:
// nothing is written then, but what push holds is given back.
func (n *session) pushWhenOpen(push func()) {
	n.mu.Lock()
	if n.opening != nil {
		n.opening.late = append(n.opening.late, push)
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	n.server.pushes.start(n, push)
}

// abandonOpening ends the waiting of a session that ended before it was open.
func (n *session) abandonOpening() {
	n.mu.Lock()
	missed := n.opening
	n.opening = nil
	n.mu.Unlock()
	if missed == nil {
		return
	}
	for _, push := range missed.late {
		n.server.pushes.start(n, push)
	}
}

// takesPushes says whether messages may be written now. While the session is opening they would come before its answer.
func (n *session) takesPushes() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.opening == nil && n.takesMessagesLocked()
}
