package grant

import (
	"context"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// Checker is a Kind that can say, before a function has a grant, whether what it reaches takes what the manifest fixes for it. It changes
// nothing there, and runs nothing of it.
type Checker interface {
	// Check looks at the grant of o. others are the grants of the same kind in its namespace: what they set up, this one may use.
	Check(ctx context.Context, o Opening, others []manifest.Grant) Checked
}

// Checked is what came of a check. The zero value is that nothing is wrong.
type Checked struct {
	Faults []CheckFault
	// Unchecked is why what is reached could not be asked, a *problem.Error without credentials.
	Unchecked error
}

// CheckFault is what would be refused.
type CheckFault struct {
	// Key leads from the grant to its place in the manifest. Statement is what is refused, and Offset the byte of it at which it is.
	Key       []string
	Statement string
	Offset    int
	Detail    string
}

// Check asks the kind of a grant; what cannot be asked has nothing wrong. The secrets that it takes are used on behalf of whoever deploys.
func (r Registry) Check(ctx context.Context, o Opening, others []manifest.Grant) Checked {
	c, ok := r[o.Grant.Kind()].(Checker)
	if !ok {
		return Checked{}
	}
	if o.Secrets != nil {
		o.Secrets = deployersSecrets{o.Secrets}
	}
	return c.Check(ctx, o, others)
}

// deployersSecrets says with each use that it is for a check.
type deployersSecrets struct{ Secrets }

// Value implements Secrets.
func (s deployersSecrets) Value(ctx context.Context, ns ident.Namespace, ref string, use Use) ([]byte, error) {
	use.Check = true
	return s.Secrets.Value(ctx, ns, ref, use)
}
