package access

import (
	"sync"
	"time"
)

const (
	// rememberFor is how long a credential that was verified is not verified again. It is also how long one works on that
	// an issuer withdrew without telling: nobody tells us.
	rememberFor = time.Minute
	// maxRecent bounds each of the two generations of remembered credentials.
	maxRecent = 1 << 13
)

// recent remembers whose credentials were verified a moment ago. Those that were refused are not remembered: to send
// such ones would then be a way to push out the others.
type recent struct {
	mu         sync.RWMutex
	changes    uint64 // of what credentials were verified with; another number ends all that is remembered
	young, old map[digest]remembered
}

type remembered struct {
	principal *Principal
	until     time.Time
}

// get returns the principal of a credential, or nil. It allocates nothing.
func (c *recent) get(sum digest, now time.Time, changes uint64) *Principal {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.changes != changes {
		return nil
	}
	r, ok := c.young[sum]
	if !ok {
		r, ok = c.old[sum]
	}
	if !ok || !now.Before(r.until) {
		return nil
	}
	return r.principal
}

// put remembers a principal until it expires, and for rememberFor at most. changes is what it was before the
// credential was verified.
func (c *recent) put(sum digest, p *Principal, now time.Time, changes uint64) {
	until := now.Add(rememberFor)
	if p.Expires.Before(until) {
		until = p.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != changes {
		if changes < c.changes {
			return // verified with what has changed since
		}
		c.young, c.old, c.changes = nil, nil, changes
	}
	if len(c.young) >= maxRecent || c.young == nil {
		c.old, c.young = c.young, make(map[digest]remembered)
	}
	c.young[sum] = remembered{principal: p, until: until}
}
