package grant

import (
	"sync/atomic"

	"sallyport/internal/problem"
)

// Spent counts the bytes that one invocation has sent and received through each grant of a Set, which made it. The uses of an
// invocation run beside each other, so it is safe for concurrent use. The zero Spent counts nothing: tests alone have one.
type Spent []atomic.Int64

// take adds n bytes to what was spent on a grant, or returns a problem and adds nothing. So a function gets at most limits.bytes, whatever it does at
// the same time; what doors have under way for it then is at most one reply for each use beyond that.
func (s Spent) take(g *gated, n int64) error {
	if s == nil {
		return nil
	}
	spent, limit := &s[g.index], g.grant.Limits.Bytes
	for {
		before := spent.Load()
		if before+n > limit {
			return problem.New(problem.TooLarge, "grant.bytes",
				"one invocation may send and receive %d bytes through the grant %q, has used %d of them, and this takes %d more", limit, g.name, before, n).
				WithHint("do less in one invocation, or raise limits.bytes of the grant")
		}
		if spent.CompareAndSwap(before, before+n) {
			return nil
		}
	}
}
