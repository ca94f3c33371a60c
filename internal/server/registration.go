package server

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// DefaultRegistrations is how many unknown clients may register in a second, over all addresses: what the store takes
	// in, since they share its commits with all other contacts.
	DefaultRegistrations = 5000
	// DefaultRegistrationsPerAddress is the same for one address: a NAT gateway with a fleet behind it.
	DefaultRegistrationsPerAddress = 2000
	// registrationBurst is how many seconds' worth may come at once: a fleet that is started at once registers at once.
	registrationBurst = 10
	// registrationRetry is what a refused newcomer is told to wait.
	registrationRetry = 30 * time.Second
	// maxLimitedAddresses bounds the memory of the limiter; past it, it forgets everybody and starts again.
	maxLimitedAddresses = 1 << 16
)

// RegistrationLimits says how many unknown clients may register in a second. Zero means the default.
type RegistrationLimits struct {
	PerSecond float64
	// PerSecondAndAddress counts nothing behind a front end that ends TLS: the address is that of the front end.
	PerSecondAndAddress float64
}

// registrationLimiter paces open registration (G-32): one limit for all, one for each address where clients have their own.
//
// Whether a client is new shows when its contact is written. So a contact only reserves a place, and takes it when the
// client was new; that way known clients need not be looked up first, while there are places.
type registrationLimiter struct {
	limits RegistrationLimits

	// Guarded by mu.
	mu        sync.Mutex
	all       *registrationPace
	byAddress map[netip.Addr]*registrationPace // nil: addresses are no clients'
}

// registrationPace is one limit, with the places of it that are reserved.
type registrationPace struct {
	*rate.Limiter
	reserved int
}

func newRegistrationLimiter(limits RegistrationLimits, addresses bool) *registrationLimiter {
	if limits.PerSecond <= 0 {
		limits.PerSecond = DefaultRegistrations
	}
	if limits.PerSecondAndAddress <= 0 {
		limits.PerSecondAndAddress = DefaultRegistrationsPerAddress
	}
	l := &registrationLimiter{limits: limits, all: newRegistrationPace(limits.PerSecond)}
	if addresses {
		l.byAddress = make(map[netip.Addr]*registrationPace)
	}
	return l
}

func newRegistrationPace(perSecond float64) *registrationPace {
	return &registrationPace{Limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*registrationBurst)))}
}

// free says whether one more can be reserved.
func (p *registrationPace) free() bool { return p.Tokens() >= float64(p.reserved+1) }

// reservation is a place in each limit that applies, until it is settled. The zero value is none.
type reservation struct {
	limiter *registrationLimiter
	paces   [2]*registrationPace // nil: does not apply
}

// reserve finds a place for a registration from an address. An address that cannot be parsed shares a limit with its like.
func (l *registrationLimiter) reserve(address string) (reservation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := reservation{l, [2]*registrationPace{l.all, l.paceLocked(clientAddress(address))}}
	for _, pace := range place.paces {
		if pace != nil && !pace.free() {
			return reservation{}, false
		}
	}
	for _, pace := range place.paces {
		if pace != nil {
			pace.reserved++
		}
	}
	return place, true
}

// settle takes the place, or gives it back.
func (r reservation) settle(registered bool) {
	if r.limiter == nil {
		return
	}
	r.limiter.mu.Lock()
	defer r.limiter.mu.Unlock()
	for _, pace := range r.paces {
		if pace == nil {
			continue
		}
		pace.reserved--
		if registered {
			pace.Allow() // there is one: it was reserved
		}
	}
}

// clientAddress is what counts as one address of an observed one, host:port: of IPv6 a whole /64, which a single machine
// may use up at will. It is not valid when the address cannot be parsed.
func clientAddress(observed string) netip.Addr {
	parsed, _ := netip.ParseAddrPort(observed)
	address := parsed.Addr().Unmap()
	if !address.Is6() {
		return address
	}
	return netip.PrefixFrom(address.WithZone(""), 64).Masked().Addr()
}

// paceLocked is the limit of an address, nil where there is none.
func (l *registrationLimiter) paceLocked(address netip.Addr) *registrationPace {
	if l.byAddress == nil {
		return nil
	}
	pace, ok := l.byAddress[address]
	if !ok {
		if len(l.byAddress) >= maxLimitedAddresses {
			clear(l.byAddress)
		}
		pace = newRegistrationPace(l.limits.PerSecondAndAddress)
		l.byAddress[address] = pace
	}
	return pace
}
