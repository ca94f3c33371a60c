package server

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// maxSessionsPerClient is how many sessions a client has here at most, the current one included. Agents have one, and a
// second while they change over; a copied key has one for each copy (G-44). Past it the oldest end.
const maxSessionsPerClient = 16

// registryShards spreads the locks; client IDs are hashes, so their first byte spreads evenly.
const registryShards = 64

// registry knows the live sessions of this server.
//
// One session of a client is current: the newest. It alone is pushed to. An older one of the same client stays open, so
// that records in flight on it are still acknowledged, until it ends or its lifetime is over.
type registry struct {
	shards [registryShards]registryShard
	count  atomic.Int64
}

type registryShard struct {
	mu      sync.Mutex
	current map[identity.ClientID]*session   // guarded by mu
	holds   map[identity.ClientID][]*session // guarded by mu: sessions that start or live, current or not
}

func newRegistry() *registry {
	r := &registry{}
	for i := range r.shards {
		r.shards[i].current = make(map[identity.ClientID]*session)
		r.shards[i].holds = make(map[identity.ClientID][]*session)
	}
	return r
}

func (r *registry) shard(id identity.ClientID) *registryShard {
	return &r.shards[int(id[0])%registryShards]
}

// hold says that a session starts; release says that it ended, and whether it was the last of its client.
func (r *registry) hold(s *session) {
	shard := r.shard(s.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.holds[s.id] = append(shard.holds[s.id], s)
}

func (r *registry) release(s *session) (last bool) {
	shard := r.shard(s.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	others := slices.DeleteFunc(shard.holds[s.id], func(held *session) bool { return held == s })
	if len(others) > 0 {
		shard.holds[s.id] = others
		return false
	}
	delete(shard.holds, s.id)
	return true
}

// sessions are all of a client, current or not: a copied key has as many as there are copies.
func (r *registry) sessions(id identity.ClientID) []*session {
	shard := r.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return slices.Clone(shard.holds[id])
}

// crowd are the sessions of a client that are too many, the oldest; the current one is never among them.
func (r *registry) crowd(id identity.ClientID) []*session {
	shard := r.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	over := len(shard.holds[id]) - maxSessionsPerClient
	if over <= 0 {
		return nil
	}
	crowd := make([]*session, 0, over)
	for _, s := range shard.holds[id] {
		if s != shard.current[id] && len(crowd) < over {
			crowd = append(crowd, s)
		}
	}
	return crowd
}

// heldBeside says whether the client of s has another session here.
func (r *registry) heldBeside(s *session) bool {
	shard := r.shard(s.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return slices.ContainsFunc(shard.holds[s.id], func(held *session) bool { return held != s })
}

// add makes s the current session of its client and returns the one it replaces: s itself when a session that began later
// got here first.
func (r *registry) add(s *session) (replaced *session) {
	shard := r.shard(s.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	replaced = shard.current[s.id]
	if replaced != nil && replaced.order > s.order {
		return s
	}
	shard.current[s.id] = s
	if replaced == nil {
		r.count.Add(1)
	}
	return replaced
}

// remove forgets s; a session that was replaced is forgotten already.
func (r *registry) remove(s *session) {
	shard := r.shard(s.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.current[s.id] == s {
		delete(shard.current, s.id)
		r.count.Add(-1)
	}
}

func (r *registry) get(id identity.ClientID) *session {
	shard := r.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.current[id]
}

func (r *registry) len() int { return int(r.count.Load()) }

// each calls visit for every current session, shard by shard, without holding a lock meanwhile. It ends when visit
// returns false.
func (r *registry) each(visit func(*session) bool) {
	for i := range r.shards {
		for _, s := range r.shards[i].snapshot() {
			if !visit(s) {
				return
			}
		}
	}
}

func (shard *registryShard) snapshot() []*session {
	shard.mu.Lock()
	defer shard.mu.Unlock()
	sessions := make([]*session, 0, len(shard.current))
	for _, s := range shard.current {
		sessions = append(sessions, s)
	}
	return sessions
}

// Wake takes the hint that messages wait for these clients. Sessions that are opening are told, too: the store names this
// server as the client's from its contact on, and one that registered with it does not read its queue before it answers.
func (s *Server) Wake(ids []identity.ClientID) {
	for _, id := range ids {
		for _, session := range s.registry.sessions(id) {
			session.mark()
		}
	}
}

// LabelsChanged takes the labels of service "client" that a client reported, after they were stored.
func (s *Server) LabelsChanged(id identity.ClientID, labels []store.Label) {
	if session := s.registry.get(id); session != nil {
		session.relabel(labels)
	}
}
