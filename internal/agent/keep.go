package agent

import (
	"fmt"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/spool"
)

const (
	// maxKeptMessages bounds the messages on disk, for the sake of what the agent remembers of each.
	maxKeptMessages = 1 << 16
	// maxResidentBytes is how much of a class that is on disk stays in memory too, beside what is in flight.
	maxResidentBytes = 1 << 20
	// diskPause is how long a disk that failed is left alone. Meanwhile messages are in memory only.
	diskPause = 30 * time.Second
	// keptOverhead is what a message takes on disk beside itself: its record, and the note that it is gone.
	keptOverhead = 36
)

// keptShares says, in sixteenths of the spool's bytes, up to where each class may fill it: services that send what matters
// less are held back first. The rest is for the spool's own work.
var keptShares = [classes]int64{classHigh: 12, classMedium: 11, classLow: 10}

// keeper is the spool as the outbox needs it. A nil keeper is never usable, and has nothing.
type keeper struct {
	spool *spool.Spool
	found *spool.Recovery // from before, until replay
	limit int64

	mu      sync.Mutex
	failure error     // of the disk; nil when all is well
	retry   time.Time // when to try it again
}

// openKeeper opens the spool. Without one the agent works all the same, so a failure is only logged.
func openKeeper(cfg spool.Config) *keeper {
	if cfg.Dir == "" {
		return nil
	}
	s, found, err := spool.Open(cfg)
	if err != nil {
		glog.Errorf("messages are in memory only, and lost when the agent ends: %v", err)
		return nil
	}
	for _, path := range found.Aside {
		glog.Errorf("a segment of the spool was damaged: it is kept as %s, and what is valid in it is sent", path)
	}
	for _, problem := range found.Problems {
		glog.Errorf("spool: %v", problem)
	}
	return &keeper{spool: s, found: found, limit: s.Stats().MaxBytes}
}

// usable reports whether messages go to disk now.
func (k *keeper) usable(now time.Time) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !now.Before(k.retry)
}

// admits reports whether a class may grow, given what is on disk.
func (k *keeper) admits(class int, kept load) bool {
	if k == nil {
		return false
	}
	bytes := int64(kept.bytes) + int64(kept.messages)*keptOverhead
	messages := int64(kept.messages) * 12 // so that its bound has the same shares
	return bytes < k.limit*keptShares[class]/16 && messages < maxKeptMessages*keptShares[class]
}

// note keeps in mind how the disk does, and logs when that changes.
func (k *keeper) note(err error, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil && k.failure != nil:
		glog.Info("the spool works again")
	case err != nil && k.failure == nil:
		glog.Errorf("messages are in memory only until the spool works again: %v", err)
	}
	k.failure, k.retry = err, time.Time{}
	if err != nil {
		k.retry = now.Add(diskPause)
	}
}

// remove forgets messages that the server has.
func (k *keeper) remove(parcels []*parcel) {
	if k == nil {
		return
	}
	var ids []uint64
	for _, p := range parcels {
		if p.kept {
			ids = append(ids, p.seq)
		}
	}
	if len(ids) == 0 {
		return
	}
	if err := k.spool.Remove(ids...); err != nil {
		glog.Warningf("%d messages may be sent again after the next start: %v", len(ids), err)
	}
}

func (k *keeper) close() {
	if k == nil {
		return
	}
	if err := k.spool.Close(); err != nil {
		glog.Errorf("spool: %v", err)
	}
}

// keep brings a message that has its room to disk and queues it. If the disk fails the room is free again.
func (o *outbox) keep(p *parcel) bool {
	err := o.keeper.spool.Append(p.seq, tagOf(p), p.raw)
	o.keeper.note(err, o.now())
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.releaseLocked(p)
		o.announceRoomLocked()
		return false
	}
	o.class[p.class].restore(p)
	o.wake()
	return true
}

// loadLocked has a message in memory. One that cannot be read back is given up.
func (o *outbox) loadLocked(p *parcel) bool {
	if p.raw != nil {
		return true
	}
	raw, err := o.keeper.spool.Read(p.seq)
	if err != nil {
		glog.Errorf("a message of %d bytes is lost: %v", p.size, err)
		o.dropLocked(p)
		return false
	}
	p.raw = raw
	o.class[p.class].resident += p.size
	return true
}

// dropLocked gives a message that is not queued up for good.
func (o *outbox) dropLocked(p *parcel) {
	o.dropped[p.class]++
	o.releaseLocked(p)
	o.keeper.remove([]*parcel{p})
	o.announceRoomLocked()
	o.settleLocked()
}

// Tags of messages in the spool: the class, and whether it is in the background.
const (
	tagClass      = 0x03
	tagBackground = 0x04
)

func tagOf(p *parcel) byte {
	tag := byte(p.class)
	if p.background {
		tag |= tagBackground
	}
	return tag
}

// replay queues what the keeper has from before, in the old order. If that is more than it may keep by now, the oldest
// messages of the lowest classes go.
func (o *outbox) replay() {
	if o.keeper == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nextSeq = o.keeper.found.LastID // not only of what is left: a removal on disk is for ever
	for _, e := range o.keeper.found.Entries {
		p := &parcel{seq: e.ID, class: min(int(e.Tag&tagClass), classLow), size: e.Size, kept: true, background: e.Tag&tagBackground != 0}
		o.holdLocked(p)
		o.class[p.class].queued = append(o.class[p.class].queued, p)
	}
	o.keeper.found = nil
	o.shedLocked()
	if o.kept.messages > 0 {
		glog.Infof("%d messages from before are on disk and will be sent", o.kept.messages)
		o.wake()
	}
}

func (o *outbox) shedLocked() {
	var gone []*parcel
	for i := classLow; i >= classHigh; i-- {
		c := &o.class[i]
		for len(c.queued) > 0 && o.overLocked() {
			p := c.queued[0]
			c.queued = c.queued[1:]
			o.dropped[i]++
			o.releaseLocked(p)
			gone = append(gone, p)
		}
	}
	if len(gone) > 0 {
		glog.Errorf("the bound of the spool is lower than before: the %d oldest messages of the lowest priorities are dropped", len(gone))
		o.keeper.remove(gone)
	}
}

// overLocked reports whether more is on disk than any class may fill, by more than the one message that may reach beyond.
func (o *outbox) overLocked() bool {
	less := load{messages: o.kept.messages - 1, bytes: o.kept.bytes - MaxMessageSize}
	return !o.keeper.admits(classHigh, less)
}

// health describes the disk for people; empty when all is well.
func (k *keeper) health() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failure == nil {
		return ""
	}
	return fmt.Sprint(k.failure)
}
