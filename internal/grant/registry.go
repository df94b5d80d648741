package grant

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"sallyport/internal/problem"
)

// Registry has the kinds that a server was built with, by the names that manifest.Grant.Kind returns. It is not changed
// once the server has begun.
type Registry map[string]Kind

// Kinds returns their names in order.
func (r Registry) Kinds() []string { return slices.Sorted(maps.Keys(r)) }

// Open makes the door of a grant. What this server has no kind for is refused.
func (r Registry) Open(ctx context.Context, o Opening) (Door, error) {
	kind, ok := r[o.Grant.Kind()]
	if !ok {
		return nil, problem.New(problem.Unsupported, "grant.kind_missing", "this server has no grants of kind %q, which %s asks for", o.Grant.Kind(), o.Name)
	}
	door, err := kind.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open grant %q: %w", o.Name, err)
	}
	return door, nil
}
