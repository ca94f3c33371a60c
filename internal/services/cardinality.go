package services

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/farspeak/farspeak/internal/store"
)

// maxLabelValue bounds a label value that a client chose, in bytes.
const maxLabelValue = 64

// table holds metric series by key, of which clients choose parts. Up to its limit each key has series of its own; from
// then on, and for keys unfit for it, the series of the coarse key are used, whose number clients do not choose.
type table[K interface {
	comparable
	fit() bool
}, S any] struct {
	limit  int
	make   func(K) S
	coarse func(K) K

	mu     sync.RWMutex
	series map[K]S
}

func newTable[K interface {
	comparable
	fit() bool
}, S any](limit int, make func(K) S, coarse func(K) K) *table[K, S] {
	return &table[K, S]{limit: limit, make: make, coarse: coarse, series: map[K]S{}}
}

func (t *table[K, S]) get(k K) S {
	t.mu.RLock()
	s, known := t.series[k]
	full := len(t.series) >= t.limit
	if !known && full {
		s, known = t.series[t.coarse(k)]
	}
	t.mu.RUnlock()
	if known {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.series) >= t.limit || !k.fit() {
		k = t.coarse(k)
	}
	if s, known = t.series[k]; !known {
		s = t.make(k)
		t.series[k] = s
	}
	return s
}

// fitValue reports whether a text of a client can be a label value.
func fitValue(text string) bool { return len(text) <= maxLabelValue && utf8.ValidString(text) }

func (k messageKey) fit() bool { return fitValue(k.source) && fitValue(k.kind) }
func (k usageKey) fit() bool   { return fitValue(k.scope) && fitValue(k.version) }
func (k killKey) fit() bool    { return fitValue(k.service) }

// labelFilter lets the client labels through that an operator wants to see in metrics.
type labelFilter map[string]bool

func newLabelFilter(allowed []string) labelFilter {
	f := labelFilter{}
	for _, label := range allowed {
		f[label] = true
	}
	return f
}

// join returns the allowed labels, sorted and joined by commas: as "service:label", and without services.
func (f labelFilter) join(labels []store.Label) (full, bare string) {
	if len(f) == 0 || len(labels) == 0 {
		return "", ""
	}
	var fulls, bares []string
	for _, l := range labels {
		name := l.Service + ":" + l.Label
		if f[l.Label] || f[name] {
			fulls, bares = append(fulls, name), append(bares, l.Label)
		}
	}
	return joinSorted(fulls), joinSorted(bares)
}

func joinSorted(texts []string) string {
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ",")
}
