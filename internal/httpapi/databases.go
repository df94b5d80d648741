package httpapi

import (
	"context"
	"net/http"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Databases are the SQLite databases of functions.
type Databases interface {
	// Accept has a database go on with a file that is older than what was recorded of it.
	Accept(ctx context.Context, ns ident.Namespace, name string) (*api.DatabaseAccepted, error)
}

// acceptDatabase has a database go on with an older file, which somebody restored on purpose.
func (a *API) acceptDatabase(c *call) error {
	name, err := ident.ParseGrantName(c.r.PathValue("name"))
	if err != nil {
		return problem.New(problem.Invalid, "httpapi.bad_request", "%v", err)
	}
	if _, err := a.deps.Namespaces.Get(c.ns); err != nil {
		return err
	}
	out, err := a.deps.Databases.Accept(c.r.Context(), c.ns, name)
	if err != nil {
		return err
	}
	a.deps.Logger.WarnContext(c.r.Context(), "a database goes on with an older file", "namespace", string(c.ns), "database", name, "recorded", out.Recorded,
		"found", out.Found, "gone", out.Gone, "principal", c.p.ID)
	return answer(c, http.StatusOK, out)
}
