package wire

import (
	"math"
	"slices"
	"strings"
)

const (
	// maxTokenMemory bounds what the services of one connection may hold, in bytes. An agent has a handful of services; a
	// hostile record has room for a million, and they would stay as long as the connection. Past it services are
	// forgotten, which leaves them without tokens.
	maxTokenMemory = 32 << 10
	// tokenOverhead is the part of it that a service takes beside its name.
	tokenOverhead = 32
	// negative is where increments wrap: larger ones are two's complement of a decrease.
	negative = 1 << 63
)

// The message that goes to a client without a token of its own.
const (
	systemService = "system"
	dieType       = "Die"
)

// Tokens is how many more messages the services of one client will take on one connection.
//
// The first record of a connection grants absolute numbers by Start. When it grants nothing at all, delivery is unlimited
// for the life of the connection. Later records return tokens by Add. Values come from the peer and may be anything: all
// sums saturate, and nothing here fails or overflows (G-04).
//
// A poll has one Start and no Add. The zero value grants nothing. It is not safe for concurrent use: whoever holds the
// session's lock reads, takes and adds.
type Tokens struct {
	unlimited bool
	left      []serviceTokens // sorted by service
	memory    int             // what left holds, against maxTokenMemory
}

type serviceTokens struct {
	service string
	left    uint64
}

// Start sets the grant of the first record. A service that is missing from a non-empty map has none.
func (t *Tokens) Start(granted map[string]uint64) {
	*t = Tokens{unlimited: len(granted) == 0}
	for service, n := range granted {
		if s := t.at(service); s != nil {
			s.left = n
		}
	}
}

// Add applies the increments of a later record. One above 1<<63 is a decrease, down to zero at most: agents send such
// wrapped numbers after a service restarted (G-24). raised says that some service has more tokens than before, so that
// messages which waited for them may go.
func (t *Tokens) Add(returned map[string]uint64) (raised bool) {
	if t.unlimited {
		return false
	}
	for service, n := range returned {
		s := t.at(service)
		if s == nil {
			continue
		}
		before := s.left
		s.left = addSaturating(before, n)
		raised = raised || s.left > before
	}
	return raised
}

func addSaturating(tokens, increment uint64) uint64 {
	if increment > negative {
		return tokens - min(tokens, -increment)
	}
	if increment > math.MaxUint64-tokens {
		return math.MaxUint64
	}
	return tokens + increment
}

// Services lists those that have tokens, in order; when limited is false, all services have.
func (t *Tokens) Services() (names []string, limited bool) {
	if t.unlimited {
		return nil, false
	}
	for _, s := range t.left {
		if s.left > 0 {
			names = append(names, s.service)
		}
	}
	return names, true
}

// Allowance is how many messages the service takes, math.MaxUint64 when delivery is unlimited.
func (t *Tokens) Allowance(service string) uint64 {
	if t.unlimited {
		return math.MaxUint64
	}
	if i, found := t.find(service); found {
		return t.left[i].left
	}
	return 0
}

// Take spends a token of the service, and reports whether there was one.
func (t *Tokens) Take(service string) bool {
	if t.unlimited {
		return true
	}
	i, found := t.find(service)
	if !found || t.left[i].left == 0 {
		return false
	}
	t.left[i].left--
	return true
}

// TakeFor spends a token for a message, and reports whether there was one. The system service's Die needs a token and
// spends none.
func (t *Tokens) TakeFor(service, messageType string) bool {
	if service == systemService && messageType == dieType {
		return t.Allowance(service) > 0
	}
	return t.Take(service)
}

// Return gives back a token that was taken for a message which then was not sent.
func (t *Tokens) Return(service string) {
	if i, found := t.find(service); found && !t.unlimited {
		t.left[i].left = addSaturating(t.left[i].left, 1)
	}
}

func (t *Tokens) find(service string) (int, bool) {
	return slices.BinarySearchFunc(t.left, service, func(s serviceTokens, name string) int {
		return strings.Compare(s.service, name)
	})
}

// at finds the service or makes room for it; it is nil when there is no room.
func (t *Tokens) at(service string) *serviceTokens {
	i, found := t.find(service)
	if !found {
		size := len(service) + tokenOverhead
		if size > maxTokenMemory-t.memory {
			return nil
		}
		t.memory += size
		t.left = slices.Insert(t.left, i, serviceTokens{service: service})
	}
	return &t.left[i]
}
