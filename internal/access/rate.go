package access

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Rate is how many of something are let through: PerSecond on the whole, and Burst at once. The zero Rate is no limit.
type Rate struct{ PerSecond, Burst int }

// Rates bound what one address or one principal may ask.
type Rates struct {
	// Failures are requests of an address whose credential was refused. An address that is past them has no signature
	// checked for it: what costs the server nothing to check, it still checks, so that nobody is locked out by others behind
	// the same address.
	Failures Rate
	// Address are requests of an address, before anything is checked.
	Address Rate
	// Principal are requests of a principal.
	Principal Rate
}

const (
	rateShards = 64
	// maxPerShard bounds the keys of a shard, about 64 bytes each.
	maxPerShard = 2048
	// sweepEvery is how often a full shard is searched for keys that are at rest: each search looks at all of them.
	sweepEvery = time.Second
	// networkBits is how much of an IPv6 address names a customer: who has one address has all with the same beginning.
	networkBits = 56
)

// limiter is a rate for each key (GCRA): it keeps the time at which a key will have paid for what it took. It is safe for
// concurrent use. When there are more keys than it keeps, those that find no room share one.
type limiter[K comparable] struct {
	every, tolerance time.Duration
	began            time.Time // times are kept as what has passed since, by the monotonic clock
	seed             maphash.Seed
	shards           [rateShards]rateShard[K]
}

type rateShard[K comparable] struct {
	mu     sync.Mutex
	paid   map[K]time.Duration
	others time.Duration // of the keys without room
	swept  time.Duration
}

// newLimiter returns a limiter, nil for no limit.
func newLimiter[K comparable](r Rate) *limiter[K] {
	if r.PerSecond <= 0 {
		return nil
	}
	every := time.Second / time.Duration(r.PerSecond)
	return &limiter[K]{every: every, tolerance: every * time.Duration(max(r.Burst, 1)-1), began: time.Now(), seed: maphash.MakeSeed()}
}

// take lets one through, or returns how long to wait for it. A nil limiter lets everything through.
func (l *limiter[K]) take(key K) (wait time.Duration) { return l.look(key, true) }

// over returns how long a key has to wait, and takes nothing.
func (l *limiter[K]) over(key K) (wait time.Duration) { return l.look(key, false) }

func (l *limiter[K]) look(key K, take bool) time.Duration {
	if l == nil {
		return 0
	}
	s := &l.shards[maphash.Comparable(l.seed, key)%rateShards]
	now := time.Since(l.began)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.paid[key]
	shared := !known && len(s.paid) >= maxPerShard && !s.sweep(now)
	if shared {
		at = s.others
	}
	at = max(at, now)
	if wait := at - now - l.tolerance; wait > 0 {
		return wait // what is past the limit is not charged, so a key is never further behind than its burst
	}
	switch {
	case !take:
	case shared:
		s.others = at + l.every
	default:
		if s.paid == nil {
			s.paid = map[K]time.Duration{}
		}
		s.paid[key] = at + l.every
	}
	return 0
}

// sweep forgets the keys that have paid for all they took, and reports whether there is room.
func (s *rateShard[K]) sweep(now time.Duration) bool {
	if now-s.swept < sweepEvery {
		return false
	}
	s.swept = now
	for k, at := range s.paid {
		if at <= now {
			delete(s.paid, k)
		}
	}
	return len(s.paid) < maxPerShard
}

// rates are the limiters of an identifier.
type rates struct {
	failures, addresses *limiter[netip.Addr]
	principals          *limiter[ident.PrincipalID]
}

func newRates(r Rates) rates {
	return rates{newLimiter[netip.Addr](r.Failures), newLimiter[netip.Addr](r.Address), newLimiter[ident.PrincipalID](r.Principal)}
}

// network returns what an address counts as: an IPv6 address is one of very many that its owner has.
func network(r *http.Request) netip.Addr {
	ip := addressOf(r)
	if ip.Is6() {
		return netip.PrefixFrom(ip, networkBits).Masked().Addr()
	}
	return ip
}

// strained returns a problem when too many credentials from the request's address were refused of late for another
// signature to be checked.
func (i *Identifier) strained(r *http.Request) error {
	if i.rates.failures == nil {
		return nil
	}
	if wait := i.rates.failures.over(network(r)); wait > 0 {
		return problem.New(problem.Exhausted, "access.too_many_failures", "too many requests from this address had no valid credential").
			WithRetryAfter(wait)
	}
	return nil
}

func rateExceeded(whose string, wait time.Duration) error {
	return problem.New(problem.Exhausted, "access.rate_exceeded", "%s sends more requests than the server's rate for it", whose).WithRetryAfter(wait)
}
