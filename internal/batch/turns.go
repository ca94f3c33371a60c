package batch

import "time"

// turns is who of several workers may begin a run: one at a time, as long as runs are quick. What arrives meanwhile then
// makes the next run larger, instead of being taken by the next worker one by one. A run that takes longer than patience gives
// its turn up, so that one that hangs holds up nobody.
type turns struct {
	turn     chan struct{} // holds the turn while no worker has it; nil when each worker begins as it likes
	patience time.Duration
}

func newTurns(workers int, patience time.Duration) turns {
	if workers == 1 || patience <= 0 {
		return turns{}
	}
	t := turns{turn: make(chan struct{}, 1), patience: patience}
	t.giveUp()
	return t
}

// of returns the turns for a run. One that begins with an item left over needs none: whoever has the turn may be waiting for
// an item that never comes.
func (t turns) of(leftOver bool) turns {
	if leftOver {
		return turns{}
	}
	return t
}

// take waits for the turn.
func (t turns) take() {
	if t.turn != nil {
		<-t.turn
	}
}

func (t turns) giveUp() {
	if t.turn != nil {
		t.turn <- struct{}{}
	}
}

// during runs run and gives the turn up at its end, or when it has taken too long.
func (t turns) during(run func()) {
	if t.turn == nil {
		run()
		return
	}
	late := time.AfterFunc(t.patience, t.giveUp)
	run()
	if late.Stop() {
		t.giveUp()
	}
}
