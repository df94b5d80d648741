package access

import (
	"crypto/sha256"
	"strings"
	"sync"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// maxRemembered bounds each of the two generations of remembered decisions, in entries of at most
// about 1 KiB. A server has far fewer of those that matter: tokens times the types they publish.
const maxRemembered = 1 << 13

// question is everything a decision depends on.
type question struct {
	principal [sha256.Size]byte
	action    policy.Action
	resource  policy.Resource
}

// answers remembers what was decided: a nil error for an allow. When the young generation is full it
// becomes the old one, and what was old is forgotten, so what is asked often stays.
type answers struct {
	mu         sync.RWMutex
	young, old map[question]error
}

// get returns what was decided. It allocates nothing.
func (a *answers) get(q *question) (decided error, ok bool) {
	a.mu.RLock()
	decided, ok = a.young[*q]
	aged := false
	if !ok {
		decided, aged = a.old[*q]
	}
	a.mu.RUnlock()
	if aged {
		a.put(q, decided)
	}
	return decided, ok || aged
}

// put remembers what was decided.
func (a *answers) put(q *question, decided error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.young[*q]; !ok && len(a.young) >= maxRemembered || a.young == nil {
		a.old, a.young = a.young, make(map[question]error)
	}
	kept := *q
	// The names may be parts of a request's body, which must not stay in memory for them.
	kept.resource.Namespace = ident.Namespace(strings.Clone(string(q.resource.Namespace)))
	kept.resource.Name = strings.Clone(q.resource.Name)
	a.young[kept] = decided
}
