package server

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// DefaultRegistrations is how many unknown clients may register in a second, over all addresses.
	DefaultRegistrations = 1000
	// DefaultRegistrationsPerAddress is the same for one address: a NAT gateway with a fleet behind it.
	DefaultRegistrationsPerAddress = 200
	// registrationBurst is how many seconds' worth may come at once.
	registrationBurst = 5
	// registrationRetry is what a refused newcomer is told to wait.
	registrationRetry = 30 * time.Second
	// maxLimitedAddresses bounds the memory of the limiter; past it, it forgets everybody and starts again.
	maxLimitedAddresses = 1 << 16
)

// RegistrationLimits says how many unknown clients may register in a second. Zero means the default.
type RegistrationLimits struct {
	PerSecond           float64
	PerSecondAndAddress float64
}

// registrationLimiter paces open registration (G-32): one limit for all, one for each address.
type registrationLimiter struct {
	limits RegistrationLimits
	all    *rate.Limiter

	mu        sync.Mutex
	byAddress map[netip.Addr]*rate.Limiter // guarded by mu
}

func newRegistrationLimiter(limits RegistrationLimits) *registrationLimiter {
	if limits.PerSecond <= 0 {
		limits.PerSecond = DefaultRegistrations
	}
	if limits.PerSecondAndAddress <= 0 {
		limits.PerSecondAndAddress = DefaultRegistrationsPerAddress
	}
	return &registrationLimiter{
		limits:    limits,
		all:       newLimiter(limits.PerSecond),
		byAddress: make(map[netip.Addr]*rate.Limiter),
	}
}

func newLimiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*registrationBurst)))
}

// allow takes one registration from both budgets. An address that cannot be parsed shares one budget with its like.
func (l *registrationLimiter) allow(address string) bool {
	parsed, _ := netip.ParseAddrPort(address)
	return l.limiter(source(parsed.Addr().Unmap())).Allow() && l.all.Allow()
}

// source is what counts as one address: of IPv6 a whole /64, which a single machine may use up at will.
func source(address netip.Addr) netip.Addr {
	if !address.Is6() {
		return address
	}
	return netip.PrefixFrom(address.WithZone(""), 64).Masked().Addr()
}

func (l *registrationLimiter) limiter(address netip.Addr) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.byAddress[address]
	if !ok {
		if len(l.byAddress) >= maxLimitedAddresses {
			clear(l.byAddress)
		}
		limiter = newLimiter(l.limits.PerSecondAndAddress)
		l.byAddress[address] = limiter
	}
	return limiter
}
