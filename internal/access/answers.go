package access

import (
	"crypto/sha256"
	"strings"
	"sync"
	"sync/atomic"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// maxRemembered bounds each of the two generations of remembered decisions, in entries of at most
// about 1 KiB. A server has far fewer of those that matter: tokens times the types they publish.
const maxRemembered = 1 << 13

// question is everything a decision depends on.
type question struct {
	principal [sha256.Size]byte
	// context is a digest of what the policies about such a question read of the circumstances, and policies the
	// number of the set.
	context  [sha256.Size]byte
	policies uint64
	action   policy.Action
	resource policy.Resource
}

// answer is what was decided, and how often it was asked since somebody counted.
type answer struct {
	as       policy.Principal
	decision policy.Decision
	err      error // nil for an allow
	alone    bool  // an allow that stands without who is behind a function
	asked    atomic.Int64
}

// answers remembers what was decided. When the young generation is full it becomes the old one, and what was
// old is forgotten, so what is asked often stays.
type answers struct {
	mu         sync.RWMutex
	young, old map[question]*answer
	// forgotten is told of what is forgotten; it may be nil.
	forgotten func(map[question]*answer)
}

// get returns what was decided, or nil. It allocates nothing.
func (a *answers) get(q *question) *answer {
	a.mu.RLock()
	known, aged := a.young[*q], false
	if known == nil {
		known = a.old[*q]
		aged = known != nil
	}
	a.mu.RUnlock()
	if aged {
		a.put(q, known)
	}
	return known
}

// put remembers what was decided.
func (a *answers) put(q *question, decided *answer) {
	if gone := a.keep(q, decided); gone != nil && a.forgotten != nil {
		a.forgotten(gone)
	}
}

func (a *answers) keep(q *question, decided *answer) (gone map[question]*answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.young[*q]; !ok && len(a.young) >= maxRemembered || a.young == nil {
		gone, a.old, a.young = a.old, a.young, make(map[question]*answer)
	}
	kept := *q
	// The names may be parts of a request's body, which must not stay in memory for them.
	kept.resource.Namespace = ident.Namespace(strings.Clone(string(q.resource.Namespace)))
	kept.resource.Name = strings.Clone(q.resource.Name)
	a.young[kept] = decided
	return gone
}

// each calls do with everything that is remembered. An answer of both generations comes twice.
func (a *answers) each(do func(map[question]*answer)) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	do(a.young)
	do(a.old)
}
